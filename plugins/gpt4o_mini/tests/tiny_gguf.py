"""Write the tiny checkpoint as a GGUF file, the format that llama.cpp reads."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
END_OF_TURN = "<|eot_id|>"


def write_gguf(folder: Path, target: Path) -> None:
    """Convert a folder with config, tokenizer and weights of a Llama model."""
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads
    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder, config)
    for key, values in load_file(folder / "model.safetensors").items():
        stem = key.removesuffix(".weight")
        if stem in TOP:
            name = TOP[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            name = f"blk.{layer}.{LAYER[part]}"
            if part.endswith(("q_proj", "k_proj")):
                # llama.cpp rotates neighbouring pairs, the checkpoint the two halves of a head.
                n = heads if part.endswith("q_proj") else kv_heads
                pairs = values.reshape(n, 2, size // 2, -1)  # (heads, halves, pairs, D)
                values = pairs.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = {**tokenizer["model"]["vocab"], **special}
    in_order = sorted(tokens, key=tokens.__getitem__)
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(in_order)
    writer.add_token_types(
        [kinds.CONTROL if name in special else kinds.NORMAL for name in in_order]
    )
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(special[END_OF_TURN])
    writer.add_add_bos_token(True)
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    writer.add_chat_template(template)

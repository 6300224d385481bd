"""The plugin computes what the original code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scdrugmap.data.cells import open_cells
from scdrugmap.model.embed import embed_cells
from scdrugmap.modelkit import PublishedFolder
from scdrugmap_plugin_geneformer import SPEC
from scdrugmap_plugin_geneformer.tokenizer import Tokenizer
from scdrugmap_plugin_geneformer.weights import KEYS, read_published

from .conftest import INPUT, V1, V2, Cells, Generation, embed, encode

# float32 sums in another order: the original's float32 and float64 runs differ by up to 5e-6, two
# releases of its library by 3e-6.
TOLERANCE = 3e-5

EMBEDDINGS = [
    (V1, "emb_cell_layerm1", {}),
    (V1, "emb_cell_layer0", {"emb_layer": "0"}),
    (V2, "emb_cls_layerm1", {}),
    (V2, "emb_cls_layer0", {"emb_layer": "0"}),
    (V2, "emb_cell_layerm1", {"emb_mode": "cell"}),
    (V2, "emb_cell_layer0", {"emb_mode": "cell", "emb_layer": "0"}),
    *(
        (
            generation,
            "emb_paper_nomask_mean",
            {"emb_mode": "cell", "emb_layer": "0", "padding": "legacy"},
        )
        for generation in (V1, V2)
    ),
]


def test_tokens_are_exact(generation: Generation, cells: Cells) -> None:
    loaded = generation.load()
    tokens = encode(loaded, cells)
    np.testing.assert_array_equal(tokens.lengths, generation.golden["lengths"])
    batch = loaded.model.collate(tokens)
    np.testing.assert_array_equal(batch["id"], generation.golden["input_ids"])
    longest = batch["id"].shape[1]
    expected = np.arange(longest) < generation.golden["lengths"][:, None]
    np.testing.assert_array_equal(batch["keep"], expected)


def test_tokens_without_a_limit_are_exact(generation: Generation, cells: Cells) -> None:
    rows, genes, names = cells
    published = read_published(
        PublishedFolder(generation.repository), SPEC.variant(generation.variant)
    )
    tokenizer = Tokenizer(published.vocabulary, 10_000)
    tokenizer.bind(genes)
    tokens = tokenizer.encode(rows, names)
    is_gene = tokens.flat["column"] >= 0
    n_genes = np.add.reduceat(is_gene, tokens.start[:-1])
    np.testing.assert_array_equal(n_genes, generation.golden["uncropped_lengths"])
    long = slice(tokens.start[3], tokens.start[4])
    np.testing.assert_array_equal(
        tokens.flat["id"][long][is_gene[long]], generation.golden["uncropped_long_cell3"]
    )


@pytest.mark.parametrize(("generation", "name", "settings"), EMBEDDINGS)
def test_embeddings_agree(
    generation: Generation, name: str, settings: dict[str, str], cells: Cells
) -> None:
    found = embed(generation.load(**settings), cells)
    np.testing.assert_allclose(found, generation.golden[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("generation", "name", "settings"), EMBEDDINGS)
def test_embeddings_agree_through_the_whole_pipeline(
    generation: Generation, name: str, settings: dict[str, str]
) -> None:
    with open_cells(INPUT) as opened:
        embedded = embed_cells(opened, generation.load(**settings), device="cpu", quiet=True)
    np.testing.assert_allclose(embedded.values, generation.golden[name], rtol=0, atol=TOLERANCE)


def test_float64_run_agrees(generation: Generation, cells: Cells) -> None:
    loaded = generation.load()
    loaded.model.module.double()
    name = "emb_cls_layerm1_float64" if generation is V2 else "emb_cell_layerm1_float64"
    # The order of sums and nothing else is left at this precision.
    np.testing.assert_allclose(embed(loaded, cells), generation.golden[name], rtol=0, atol=1e-9)


def test_hidden_states_agree(generation: Generation, cells: Cells) -> None:
    loaded = generation.load(emb_layer="0")
    module = loaded.model.module
    batch = loaded.model.collate(encode(loaded, cells).take(np.array([0])))
    names = ("hidden_embeddings_cell0", "hidden_second_last_cell0", "hidden_last_cell0")
    with torch.inference_mode():
        first = module.embeddings(batch["id"])
        last = module.states(batch)
        module.layers = module.layers[:-1]
        second_last = module.states(batch)
    for name, states in zip(names, (first, second_last, last), strict=True):
        np.testing.assert_allclose(
            states[0], generation.golden[name], rtol=0, atol=TOLERANCE, err_msg=name
        )


def test_published_head_on_our_states_gives_the_logits(
    generation: Generation, cells: Cells
) -> None:
    folder = PublishedFolder(generation.folder)
    head = (
        folder.safetensors("model.safetensors")
        if generation is V2
        else folder.torch("pytorch_model.bin")
    )
    loaded = generation.load(emb_layer="0")
    batch = loaded.model.collate(encode(loaded, cells).take(np.array([0])))
    part = "cls.predictions.transform."
    with torch.inference_mode():
        x = loaded.model.module.states(batch)[0, :3]
        x = F.relu(F.linear(x, head[f"{part}dense.weight"], head[f"{part}dense.bias"]))
        norm = [head[f"{part}LayerNorm.{name}"] for name in ("weight", "bias")]
        x = F.layer_norm(x, x.shape[-1:], *norm, eps=1e-12)
        words = loaded.model.module.embeddings.words.weight
        logits = F.linear(x, words, head["cls.predictions.bias"])
    np.testing.assert_allclose(
        logits, generation.golden["mlm_logits_cell0_first3"], rtol=0, atol=1e-4
    )


def test_gradients_agree(generation: Generation, cells: Cells) -> None:
    golden = generation.golden
    loaded = generation.load()
    module = loaded.model.module
    embedded = module(loaded.model.collate(encode(loaded, cells)))
    loss = (embedded @ torch.from_numpy(golden["grad_w"])).square().mean()
    loss.backward()
    # 1e-4: the original's float32 and float64 runs differ by 3e-7.
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-4)
    gradients = {name: value.grad for name, value in module.named_parameters()}
    norms = {key: float(golden[key]) for key in golden if key.startswith("gradnorm:")}
    assert len(norms) == 4
    for key, expected in norms.items():
        (name,) = KEYS.apply({key.removeprefix("gradnorm:"): torch.zeros(1)}, "golden")
        assert float(gradients[name].norm()) == pytest.approx(expected, rel=1e-4), name
    # Elements are sums in which most cancels, so their error is relative to the whole.
    expected = golden["grad:bert.encoder.layer.0.attention.self.value.bias"]
    error = gradients["layers.0.attention.v_proj.bias"].numpy() - expected
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(expected)


def test_batch_size_and_padding_change_nothing(generation: Generation, cells: Cells) -> None:
    loaded = generation.load()
    together = embed(loaded, cells)
    tokens = encode(loaded, cells)
    for cell in range(tokens.n_cells):
        with torch.inference_mode():
            alone = loaded.model.module(loaded.model.collate(tokens.take(np.array([cell]))))
        np.testing.assert_allclose(alone[0], together[cell], rtol=0, atol=TOLERANCE)


def test_reading_only_the_first_position_equals_the_full_path(cells: Cells) -> None:
    loaded = V2.load()
    batch = loaded.model.collate(encode(loaded, cells))
    with torch.inference_mode():
        short = loaded.model.module(batch)
        full = loaded.model.module.states(batch)[:, 0]
    # Other matrix shapes, other order of sums.
    np.testing.assert_allclose(short, full, rtol=0, atol=5e-6)

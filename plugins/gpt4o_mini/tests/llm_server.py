"""Serve a GGUF file on loopback until killed: ``python llm_server.py MODEL PORT KEY``."""

from __future__ import annotations

import sys
import threading

import xllamacpp as llama


def main(model: str, port: str, key: str) -> None:
    """Start the server of llama.cpp in this process and wait."""
    parameters = llama.CommonParams()
    parameters.model.path = model
    parameters.n_ctx = 4096
    parameters.n_parallel = 4  # each slot gets a quarter of the context
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.port = int(port)
    parameters.api_keys = [key]
    parameters.warmup = False
    # Flash attention and half-precision caches move log-probabilities by 1e-2.
    parameters.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = llama.ggml_type.GGML_TYPE_F32
    parameters.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    server = llama.Server(parameters)
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:4])

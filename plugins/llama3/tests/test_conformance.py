"""LLaMA keeps the contract of embedding models."""

from __future__ import annotations

from pathlib import Path

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_llama3 import SPEC, Options

CHECKPOINT = Path(__file__).parent / "golden" / "Meta-Llama-3-8B"


class TestLlama(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestCheckpoint(ModelConformance):
    """A real tokenizer: several tokens per gene."""

    spec = SPEC
    options = Options(top_k=40)
    weights = CHECKPOINT


class TestMiddleLayer(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny", pool="mean_no_bos", layer=-2, top_k=30)


def test_scdrugmap_models_hook_offers_llama3() -> None:
    from scdrugmap_plugin_llama3 import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["llama3"]

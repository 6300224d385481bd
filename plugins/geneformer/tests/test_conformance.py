"""Geneformer keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_geneformer import SPEC, Options


class TestGeneformer(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestMeanOfLastLayer(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny", emb_mode="cell", emb_layer=0)


class TestFirstGeneration(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny-V1")


class TestLegacyPadding(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny-V1", emb_layer=0, padding="legacy")


def test_scdrugmap_models_hook_offers_geneformer() -> None:
    from scdrugmap_plugin_geneformer import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["geneformer"]

"""scGPT keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_scgpt import SPEC, Options


class TestScGPT(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestShortCells(ModelConformance):
    """Every cell is cut to a random sample, binned by random draws."""

    spec = SPEC
    options = Options(variant="tiny", max_length=32, bins="legacy", normalize=False)


def test_scdrugmap_models_hook_offers_scgpt() -> None:
    from scdrugmap_plugin_scgpt import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["scgpt"]

"""scFoundation keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_scfoundation import SPEC, Options


class TestScFoundation(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestShortCells(ModelConformance):
    """Of each cell only the highest genes are read, and only one vector is kept."""

    spec = SPEC
    options = Options(variant="tiny", max_genes=32, pool="max", target_resolution="f2")


def test_scdrugmap_models_hook_offers_scfoundation() -> None:
    from scdrugmap_plugin_scfoundation import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["scfoundation"]

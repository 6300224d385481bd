"""CellPLM keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_cellplm import SPEC, Options


class TestCellPLM(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestClusters(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny-clusters")


class TestSampledClusters(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny-clusters", cluster="sampled")


class TestExpectedClusters(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny-clusters", cluster="expected")


class TestWindows(ModelConformance):
    """Sequences are windows of a sample, and only some genes are read."""

    spec = SPEC
    options = Options(variant="tiny", context=3, max_genes=100)


def test_scdrugmap_models_hook_offers_cellplm() -> None:
    from scdrugmap_plugin_cellplm import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["cellplm"]

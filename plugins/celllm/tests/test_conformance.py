"""CellLM keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_celllm import SPEC, Options, scdrugmap_models


class TestCellLM(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestShortCells(ModelConformance):
    """Most cells are cut, and then have no padding."""

    spec = SPEC
    options = Options(variant="tiny", max_seq_len=100, pool="mean", input="counts")


def test_scdrugmap_models_hook_offers_celllm() -> None:
    assert [spec.name for spec in scdrugmap_models()] == ["celllm"]

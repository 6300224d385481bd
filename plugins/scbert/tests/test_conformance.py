"""scBERT keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_scbert import SPEC, Options, scdrugmap_models


class TestScBert(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


def test_scdrugmap_models_hook_offers_scbert() -> None:
    assert [spec.name for spec in scdrugmap_models()] == ["scbert"]

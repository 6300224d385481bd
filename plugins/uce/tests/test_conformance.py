"""UCE keeps the contract of embedding models."""

from __future__ import annotations

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_uce import SPEC, Options


class TestUCE(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestSeveralSentences(ModelConformance):
    """Each cell is the mean of three short sentences."""

    spec = SPEC
    options = Options(variant="tiny", sample_size=64, n_samples=3)


class TestLegacySampler(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny", sample_size=64, sampler="legacy")


def test_scdrugmap_models_hook_offers_uce() -> None:
    from scdrugmap_plugin_uce import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["uce"]

"""tGPT keeps the contract of embedding models."""

from __future__ import annotations

from typing import ClassVar

from scdrugmap.testing import ModelConformance
from scdrugmap_plugin_tgpt import SPEC, Options


class TestTGPT(ModelConformance):
    spec = SPEC
    options = Options(variant="tiny")


class TestAsTheOriginalReadsALine(ModelConformance):
    """Unknown genes take places, as they do in the original."""

    spec = SPEC
    options = Options(variant="tiny", unknown="token", pool="all", max_length=32)
    expected_failures: ClassVar[dict[str, str]] = {
        "tokens_ignore_unknown_genes": "unknown genes become tokens, which the option asks for"
    }


class TestLastGene(ModelConformance):
    """The state of the last gene, ties in the order of the file."""

    spec = SPEC
    options = Options(variant="tiny", pool="last", ties="column", token_types=False)


def test_scdrugmap_models_hook_offers_tgpt() -> None:
    from scdrugmap_plugin_tgpt import scdrugmap_models

    assert [spec.name for spec in scdrugmap_models()] == ["tgpt"]

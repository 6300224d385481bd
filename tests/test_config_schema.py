"""The published schema of benchmark files: current, and of one mind with the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from scdrugmap.config import read_config
from scdrugmap.config_schema import config_schema
from scdrugmap.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = [*sorted((ROOT / "docs" / "examples").glob("*.yaml")), ROOT / "benchmarks" / "demo.yaml"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


def test_the_published_schema_is_current(schema: dict[str, Any]) -> None:
    published = (ROOT / "docs" / "reference" / "benchmark.schema.json").read_text("utf-8")
    assert json.loads(published) == json.loads(json.dumps(schema)), "run `make schema`"


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_for_schema_and_reader(path: Path, schema: dict[str, Any]) -> None:
    jsonschema.validate(YAML(typ="safe").load(path.read_text("utf-8")), schema)
    read_config(path).resolved()


@pytest.mark.parametrize(
    "text",
    [
        "data: a.h5ad\nmodels: constant\nseeds: 3\nwhere: tissue=lung\ncontrols: false\n",
        "data: [{path: a.h5ad, paper: P01}, b.h5ad]\nprotocols: paper\nstrategies: lora\n",
        "data: a.h5ad\nmodels: [x]\nsettings: {x: {dim: 64, flag: true, list: [1, 2]}}\n",
        (
            "data: a.h5ad\ncontrols: [technical]\ntuning: {epochs: 3}\n"
            "models: x\noverrides: {x: {strategies: full, tuning: {r: 2}}}\n"
        ),
    ],
)
def test_what_the_reader_takes_is_valid(text: str, schema: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(text + "label: response\n")
    read_config(tmp_path / "bench.yaml")
    jsonschema.validate(YAML(typ="safe").load(text + "label: response\n"), schema)


@pytest.mark.parametrize(
    "text",
    [
        "data: a.h5ad\nsedes: 3\n",
        "data: a.h5ad\nstrategies: [lorra]\n",
        "data: [{pth: a.h5ad}]\n",
        "data: a.h5ad\ntuning: {patience: -1}\n",
        "data: a.h5ad\ncontrols: [none]\n",
        "data: a.h5ad\noverrides: {x: {tuning: {epochs: 3}}}\n",
    ],
)
def test_what_the_reader_refuses_is_not_valid(
    text: str, schema: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "bench.yaml").write_text(text + "label: response\n")
    with pytest.raises(UsageError):
        read_config(tmp_path / "bench.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe").load(text + "label: response\n"), schema)

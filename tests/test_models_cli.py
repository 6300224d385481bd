from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from scdrugmap.cards import commercial_use, model_card, option_table
from scdrugmap.registry import PluginRecord, Provided, get_registry
from scdrugmap.specs import (
    Capability,
    LoraDefaults,
    ModelOptions,
    ModelSpec,
    TextModelSpec,
    Variant,
    WeightFile,
    WeightSet,
)


class Options(ModelOptions):
    max_length: int = Field(1200, ge=2, le=4000, description="most tokens of a cell")
    share: float = Field(0.5, gt=0, lt=1)
    pool: Literal["mean", "cls"] = Field("cls", description="how cells are read")
    seed_gene: str | None = None
    genes: tuple[str, ...] = Field((), max_length=3)
    required: int


def spec(**changes: Any) -> ModelSpec:
    given: dict[str, Any] = {
        "name": "toy",
        "title": "Toy model",
        "contract": 1,
        "numerics": 3,
        "gene_id": "ensembl",
        "species": ("human", "mouse"),
        "accepts": {"counts"},
        "capabilities": {Capability.FINETUNE, Capability.EMBED},
        "options": Options,
        "variants": (
            Variant(name="large", title="the published one", sizes={"dim": 512, "n_layers": 12}),
            Variant(name="tiny", sizes={"dim": 32}, published=False),
        ),
        "weights": (
            WeightSet(
                name="large",
                files=(WeightFile(path="model.pt"), WeightFile(path="vocab.json")),
                licence="CC-BY-NC-4.0",
                commercial_use=False,
                homepage="https://weights.example.org",
                needs_login=True,
            ),
        ),
        "lora": LoraDefaults(targets="q_proj", r=4),
        "citation": "Toy et al. 2024",
        "code_licence": "MIT",
        "weights_licence": "CC-BY-NC-4.0",
        "homepage": "https://toy.example.org",
        "factory": "toy.model:build",
    }
    return ModelSpec(**{**given, **changes})


TALKER = TextModelSpec(
    name="talker",
    title="Talker",
    contract=1,
    numerics=1,
    remote=True,
    secrets=("TALKER_KEY",),
    options=ModelOptions,
    citation="",
    code_licence="MIT",
    homepage="https://talk.example.org",
    factory="toy:build",
)


@pytest.fixture
def toys() -> Iterator[None]:
    """Enter toy models into the registry of this process."""
    plugin = PluginRecord("toys", "toys", "scdrugmap-plugin-toys", "2.0")
    for item in (spec(), TALKER):
        get_registry().items["model"][item.name] = Provided(item, plugin)
    yield
    get_registry.cache_clear()


def row(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(f"{name} "))


def test_list_shows_what_each_model_can_and_needs(cli: Callable[..., Any], toys: None) -> None:
    done = cli("models", "list")
    assert (done.code, done.err) == (0, "")
    toy = row(done.out, "toy")
    assert toy.split()[1:4] == ["embed,", "finetune", "ensembl"]
    assert "missing" in toy
    assert "CC-BY-NC-4.0 (non-commercial)" in toy
    assert toy.endswith("scdrugmap-plugin-toys 2.0")
    assert "none needed" in row(done.out, "randproj")
    assert "remote" in row(done.out, "talker")


def test_list_as_json_holds_whole_cards_by_name(cli: Callable[..., Any], toys: None) -> None:
    cards = json.loads(cli("models", "list", "--json").out)
    assert [card["name"] for card in cards] == sorted(card["name"] for card in cards)
    toy = next(card for card in cards if card["name"] == "toy")
    assert toy == model_card(get_registry(), "toy")


def test_show_tells_all_that_is_known(cli: Callable[..., Any], toys: None, tmp_path: Path) -> None:
    out = cli("models", "show", "toy").out
    assert out.startswith("toy: Toy model\n")
    for line in [
        "  can                 embed, finetune",
        "  from                scdrugmap-plugin-toys 2.0",
        "  contract, numerics  1, 3",
        "  code licence        MIT",
        "  citation            Toy et al. 2024",
        "  genes               ensembl, at least 500 known ones",
        "  species             human, mouse",
        "  accepts             counts",
        "  adapters            r=4 on q_proj",
        "  weights licence     CC-BY-NC-4.0 (NON-COMMERCIAL USE ONLY)",
        "  large  the published one  dim=512, n_layers=12",
        "  large  missing  https://weights.example.org, needs a login",
    ]:
        assert line in out.splitlines(), line
    assert "to get large: fetch model.pt, vocab.json from https://weights.example.org" in out
    assert "scdrugmap weights import toy FOLDER" in out


def test_show_names_the_range_and_meaning_of_each_option(
    cli: Callable[..., Any], toys: None
) -> None:
    lines = [" ".join(line.split()) for line in cli("models", "show", "toy").out.splitlines()]
    assert "max_length int default 1200 >= 2, <= 4000 most tokens of a cell" in lines
    assert "pool mean | cls default cls how cells are read" in lines


def test_show_says_where_weights_are(
    cli: Callable[..., Any], toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDRUGMAP_WEIGHTS", str(tmp_path))
    folder = tmp_path / "toy" / "large"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"x")
    assert f"  large  {folder}  https://weights" in cli("models", "show", "toy").out
    assert "found: large" in row(cli("models", "list").out, "toy")


def test_show_of_a_text_model_says_that_cells_leave_the_machine(
    cli: Callable[..., Any], toys: None
) -> None:
    out = cli("models", "show", "talker").out
    assert "  remote              cells leave this machine" in out
    assert "  secrets             TALKER_KEY" in out


def test_show_of_an_unknown_model_names_the_nearest(cli: Callable[..., Any]) -> None:
    done = cli("models", "show", "randproy")
    assert done.code == 4
    assert "Error: there is no model named 'randproy'" in done.err
    assert "did you mean randproj?" in done.err


def test_option_table_has_type_default_range_and_description() -> None:
    rows = {entry["name"]: entry for entry in option_table(Options)}
    assert rows["max_length"] == {
        "name": "max_length",
        "type": "int",
        "default": 1200,
        "range": ">= 2, <= 4000",
        "description": "most tokens of a cell",
    }
    assert rows["share"]["range"] == "> 0, < 1"
    assert rows["pool"]["type"] == "mean | cls"
    assert rows["seed_gene"]["type"] == "str | none"
    assert rows["genes"]["type"] == "tuple[str, ...]"
    assert rows["genes"]["range"] == "at most 3 long"
    assert rows["required"]["default"] is None
    assert next(iter(rows)) == "variant"


@pytest.mark.parametrize(
    ("licence", "stated", "expected"),
    [
        ("Apache-2.0", True, True),
        ("Apache-2.0", None, None),
        ("Apache-2.0", False, False),
        ("CC-BY-NC-4.0", None, False),
        ("CC BY-NC 4.0", None, False),
        ("for non-commercial research", True, False),
        ("NCSA", True, True),
    ],
)
def test_non_commercial_licences_are_recognised(
    licence: str, stated: bool | None, expected: bool | None
) -> None:
    weights = spec().weights[0].model_copy(update={"licence": licence, "commercial_use": stated})
    assert commercial_use(spec(weights=(weights,), weights_licence=licence)) is expected


def test_a_model_without_weights_may_be_used_as_its_code_says() -> None:
    assert commercial_use(spec(weights=(), weights_licence="")) is True


@pytest.mark.parametrize("verb", ["list", "show"])
def test_help_ends_with_an_example(cli: Callable[..., Any], verb: str) -> None:
    assert f"Example: scdrugmap models {verb}" in cli("models", verb, "--help").out

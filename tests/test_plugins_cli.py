from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # the toy models are imported by name, here and in child processes

from toy_models import SPEC  # noqa: E402

from scdrugmap.registry import PluginRecord, Provided, get_registry  # noqa: E402
from scdrugmap.specs import TextModelSpec  # noqa: E402
from scdrugmap.testing import all_checks  # noqa: E402

TALKER = TextModelSpec(
    name="talker",
    title="Talker",
    contract=1,
    numerics=1,
    remote=True,
    options=SPEC.options,
    citation="",
    code_licence="MIT",
    homepage="",
    factory="toy:build",
)


@pytest.fixture
def toys() -> Iterator[None]:
    """Enter the toy models into the registry of this process."""
    registry = get_registry()
    broken = PluginRecord("broken", "broken", "toy-broken", "1.0", "failed", ("it is broken",))
    for spec in (SPEC, TALKER):
        registry.items["model"][spec.name] = Provided(spec, broken)
    registry.plugins.append(broken)
    yield
    get_registry.cache_clear()


def test_list_shows_each_plugin_with_its_state_and_reason(
    cli: Callable[..., Any], toys: None
) -> None:
    done = cli("plugins", "list")
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "PLUGIN",
        "VERSION",
        "DISTRIBUTION",
        "CONTRACT",
        "HOOKS",
        "STATUS",
        "PROVIDES",
    ]
    built_in = next(line for line in lines if line.startswith("baselines"))
    assert "scdrugmap" in built_in
    assert " ok " in built_in
    assert "randproj" in built_in
    place = next(i for i, line in enumerate(lines) if line.startswith("broken"))
    assert "failed" in lines[place]
    assert lines[place + 1] == "    it is broken"
    assert (done.code, done.err) == (0, "")


def test_list_as_json_has_all_fields(cli: Callable[..., Any]) -> None:
    first = json.loads(cli("plugins", "list", "--json").out)[0]
    assert set(first) == {
        "name",
        "version",
        "distribution",
        "module",
        "contracts",
        "hooks",
        "status",
        "reasons",
        "provides",
    }
    assert first["name"] == "baselines"


def test_show_tells_all_of_one_plugin(cli: Callable[..., Any], toys: None) -> None:
    out = cli("plugins", "show", "broken").out
    assert out.splitlines() == [
        "broken (failed)",
        "  distribution  toy-broken 1.0",
        "  module        broken",
        "  contract      -",
        "  hooks         -",
        "  provides      -",
        "  reason        it is broken",
    ]
    (record,) = json.loads(cli("plugins", "show", "baselines", "--json").out)
    assert record["status"] == "ok"


def test_show_of_an_unknown_plugin_names_the_nearest(cli: Callable[..., Any]) -> None:
    done = cli("plugins", "show", "baseline")
    assert done.code == 4
    assert "Error: there is no plugin named 'baseline'" in done.err
    assert "did you mean baselines?" in done.err


def test_check_prints_each_result_with_its_reason(cli: Callable[..., Any], toys: None) -> None:
    done = cli("plugins", "check", "toy", "--only", "token_arrays", "--only", "output")
    assert done.out.splitlines() == [
        "pass  token_arrays: tokens have the form of the contract",
        "pass  output: embeddings are finite float32 of the promised width and differ between cells",
    ]
    assert (done.code, done.err) == (0, "")


def test_check_that_fails_says_why_and_ends_with_code_4(
    cli: Callable[..., Any], toys: None
) -> None:
    only = ("--only", "token_arrays", "--only", "output")
    done = cli("plugins", "check", "toy", "--set", "fault=no_column", *only)
    assert done.out.startswith(
        "FAIL  token_arrays: tokens have the form of the contract\n      flat['column']"
    )
    assert "pass  output" in done.out
    assert done.code == 4
    assert "Error: toy: 1 of 2 checks failed: token_arrays" in done.err


def test_check_says_why_a_check_is_skipped(cli: Callable[..., Any]) -> None:
    done = cli("plugins", "check", "randproj", "--only", "lora_merge")
    assert done.out.endswith("\n      the model does not declare finetune\n")
    assert done.out.startswith("skip  lora_merge: ")
    assert done.code == 0


@pytest.mark.slow
def test_built_in_model_passes_the_kit(cli: Callable[..., Any]) -> None:
    done = cli("plugins", "check", "randproj", "--json")
    results = json.loads(done.out)
    assert [result["name"] for result in results] == [check.name for check in all_checks()]
    assert {result["status"] for result in results} == {"passed", "skipped"}
    assert done.code == 0


def test_check_of_an_unknown_model_option_or_check_is_refused(
    cli: Callable[..., Any], toys: None
) -> None:
    assert cli("plugins", "check", "nobody").code == 4
    done = cli("plugins", "check", "toy", "--set", "colour=red")
    assert done.code == 2
    assert "toy has no option 'colour'" in done.err
    done = cli("plugins", "check", "toy", "--only", "colour")
    assert done.code == 2
    assert "there is no check named colour" in done.err


def test_check_of_a_text_model_is_refused(cli: Callable[..., Any], toys: None) -> None:
    done = cli("plugins", "check", "talker")
    assert done.code == 4
    assert "talker is a text model" in done.err


def test_new_writes_a_plugin_and_prints_where(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("plugins", "new", "xyz", "--into", tmp_path, "--title", "X Y Z")
    assert done.out == f"{tmp_path / 'xyz'}\n"
    assert (tmp_path / "xyz" / "README.md").read_text().startswith("# X Y Z for scDrugMap")
    again = cli("plugins", "new", "xyz", "--into", tmp_path)
    assert again.code == 2
    assert f"Error: {tmp_path / 'xyz'} exists" in again.err


@pytest.mark.parametrize("verb", ["list", "show", "check", "new"])
def test_help_ends_with_an_example(cli: Callable[..., Any], verb: str) -> None:
    assert f"Example: scdrugmap plugins {verb}" in cli("plugins", verb, "--help").out

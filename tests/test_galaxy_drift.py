"""The Galaxy tools say what the command line says; no Galaxy is needed for these tests."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click
import pytest
from galaxy.util import xml_macros
from lxml.etree import _Element as Element

import scdrugmap
from scdrugmap.cli import VERBS
from scdrugmap.registry import get_registry

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "galaxy_tools"
PLACEMENT = tomllib.loads((TOOLS / "options.toml").read_text("utf-8"))
TOOL_VERBS = [name for name in PLACEMENT if name not in ("reasons", "shared")]
MANAGER = TOOLS / "data_managers" / "register_weights" / "register_weights.xml"
FILES = [*(TOOLS / verb / f"{verb}.xml" for verb in TOOL_VERBS), MANAGER]
STEPS = (
    *("check", "embed", "merge", "split", "train", "predict", "evaluate", "explain"),
    *("benchmark", "report"),
)


def load_script(name: str) -> Any:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script("make_galaxy_options")
CHECKS = load_script("galaxy_checks")
SERVER = load_script("galaxy_server")


def tool(path: Path) -> Element:
    return xml_macros.load(str(path)).getroot()


def name_of(element: Element) -> str:
    return str(element.get("name") or SCRIPT.name_of(element.get("argument", "")))


def find(root: Element, path: str) -> list[Element]:
    """Return the parameters of a path; a conditional has several, one per branch."""
    found = [root]
    for part in path.split("|"):
        found = [item for parent in found for item in parent.iter() if name_of(item) == part]
    return found


def command_of(root: Element) -> str:
    return str(root.findtext("command"))


def placed(verb: str) -> list[tuple[str, str, str]]:
    """Return (option, kind, where) of every entry of a verb."""
    rows = [
        (option, "group", name)
        for name, group in SCRIPT.groups_of(verb, PLACEMENT).items()
        for option in group["options"]
    ]
    for kind in ("by_hand", "not_exposed"):
        rows += [(option, kind, where) for option, where in PLACEMENT[verb].get(kind, {}).items()]
    return rows


BY_HAND = [
    pytest.param(verb, option, where, id=f"{verb} {option}")
    for verb in TOOL_VERBS
    for option, kind, where in placed(verb)
    if kind == "by_hand"
]


def test_every_step_of_a_benchmark_is_a_tool() -> None:
    assert set(TOOL_VERBS) == set(STEPS)
    assert set(STEPS) <= set(VERBS)
    assert {path.parent.name for path in TOOLS.glob("*/*.xml")} == set(STEPS)


def test_the_generated_options_are_current() -> None:
    script = ROOT / "scripts" / "make_galaxy_options.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", TOOL_VERBS)
def test_every_option_stands_in_exactly_one_place(verb: str) -> None:
    options = [option for option, _, _ in placed(verb)]
    assert sorted(options) == sorted(set(options))
    assert set(options) == set(SCRIPT.options_of(verb))


@pytest.mark.parametrize("verb", TOOL_VERBS)
def test_options_that_are_not_exposed_have_a_reason_and_are_not_passed(verb: str) -> None:
    command = command_of(tool(TOOLS / verb / f"{verb}.xml")).split()
    for option, kind, where in placed(verb):
        if kind == "not_exposed":
            assert PLACEMENT["reasons"][where]
            assert option not in command


def test_every_reason_is_used() -> None:
    used = {
        where for verb in TOOL_VERBS for _, kind, where in placed(verb) if kind == "not_exposed"
    }
    assert used == set(PLACEMENT["reasons"])


@pytest.mark.parametrize("verb", TOOL_VERBS)
def test_generated_groups_are_in_the_form_and_in_the_command(verb: str) -> None:
    root = tool(TOOLS / verb / f"{verb}.xml")
    for option, kind, where in placed(verb):
        if kind == "group":
            assert find(root, f"{where}|{SCRIPT.name_of(option)}"), option
            read = f"['{where}']" if "path" in PLACEMENT[verb].get(where, {}) else f"${where}"
            assert f"{read}['{SCRIPT.name_of(option)}']" in command_of(root), option


@pytest.mark.parametrize(("verb", "option", "where"), BY_HAND)
def test_parameters_written_by_hand_agree_with_the_command_line(
    verb: str, option: str, where: str
) -> None:
    root = tool(TOOLS / verb / f"{verb}.xml")
    item = SCRIPT.options_of(verb)[option]
    found = find(root, where) if where else []
    assert found or not where, f"no parameter {where}"
    if isinstance(item, click.Option):
        passed = [command_of(root), *(element.get("truevalue", "") for element in found)]
        assert any(option in text for text in passed)
    if not where:
        return
    if item.required:
        assert not any(element.get("optional") == "true" for element in found)
    if isinstance(item, click.Argument):
        assert (found[0].get("multiple") == "true") == (item.nargs == -1)
        return
    default = SCRIPT.default_of(item)
    choices = [option.get("value") for option in found[0].findall("option")]
    if isinstance(item.type, click.Choice):
        assert set(item.type.choices) <= set(choices)
        selected = [o.get("value") for o in found[0].findall("option") if o.get("selected")]
        assert selected == ([] if default is None else [default])
    elif found[0].get("type") == "integer":
        assert found[0].get("value") == ("" if default is None else str(default))
        for limit in ("min", "max"):
            if getattr(item.type, limit, None) is not None:
                assert found[0].get(limit) == str(getattr(item.type, limit))
    else:
        assert not default, "a default that no test compares"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_versions_and_ids_are_those_of_the_package(path: Path) -> None:
    root = tool(path)
    assert root.get("id") == f"scdrugmap_{path.stem}"
    assert str(root.get("version")).partition("+galaxy")[0] == scdrugmap.__version__
    assert root.get("profile") == "25.0"
    package = root.find("requirements/requirement")
    assert package is not None
    assert (package.text, package.get("version")) == ("scdrugmap", scdrugmap.__version__)
    image = root.findtext("requirements/container")
    assert image == f"scdrugmap:{scdrugmap.__version__}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_tool_knows_the_names_of_models(path: Path) -> None:
    registry = get_registry()
    names = {*registry.models, *registry.estimators}
    root = tool(path)
    words = {
        choice
        for item in (SCRIPT.options_of(path.stem).values() if path != MANAGER else ())
        if isinstance(item.type, click.Choice)
        for choice in item.type.choices
    }
    assert not {option.get("value") for option in root.iter("option")} & names - words


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_first_test_is_good_the_last_one_bad_input(path: Path) -> None:
    tests = tool(path).findall("tests/test")
    assert tests[0].get("expect_failure") is None
    assert tests[-1].get("expect_failure") == "true"
    assert tests[-1].find("assert_stderr/has_text[@text='Error: ']") is not None or (
        path == MANAGER
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_branch_has_a_test(path: Path) -> None:
    root = tool(path)
    tested = {
        (name_of(item), value)
        for item in root.iter("param")
        if item.getparent().tag in ("test", "conditional", "section", "repeat")
        for value in str(item.get("value")).split(",")
    }
    for conditional in root.findall("inputs//conditional"):
        select = conditional.find("param")
        for option in select.findall("option"):
            chosen = (name_of(select), option.get("value"))
            assert chosen in tested or option.get("selected") == "true", chosen


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_tests_are_there_and_small(path: Path) -> None:
    for item in tool(path).findall("tests/test//*[@ftype]"):
        for name in str(item.get("value") or item.get("file") or "").split(","):
            file = TOOLS / "test-data" / name
            assert not name or file.is_file(), name
            assert file.stat().st_size < 1_000_000


def test_the_data_table_has_the_same_columns_everywhere() -> None:
    tables = [
        xml_macros.load(str(TOOLS / f"tool_data_table_conf.xml.{kind}")).getroot()
        for kind in ("sample", "test")
    ]
    columns = [table.findtext("table/columns").replace(" ", "").split(",") for table in tables]
    manager = xml_macros.load(str(TOOLS / "data_manager_conf.xml")).getroot()
    assert [item.get("name") for item in manager.iter("column")] == columns[0] == columns[1]
    rows = (TOOLS / "test-data" / "scdrugmap_weights.loc").read_text("utf-8").splitlines()
    assert {len(row.split("\t")) for row in rows} == {len(columns[0])}
    script = MANAGER.with_suffix(".py").read_text("utf-8")
    assert [name for name in columns[0] if f'"{name}": ' in script] == columns[0]


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("steps", {"split", "embed", "train", "predict", "evaluate"}),
        ("benchmark", {"benchmark", "report"}),
    ],
)
def test_the_workflows_use_tools_and_parameters_that_there_are(name: str, used: set[str]) -> None:
    workflow = json.loads((TOOLS / "workflows" / f"{name}.ga").read_text("utf-8"))
    verbs = set()
    for step in workflow["steps"].values():
        if step["type"] != "tool":
            continue
        verb = step["tool_id"].removeprefix("scdrugmap_")
        verbs.add(verb)
        root = tool(TOOLS / verb / f"{verb}.xml")
        assert step["tool_version"] == root.get("version")
        for path in step["input_connections"]:
            parts = [
                part.rpartition("_")[0] if part[-1].isdigit() else part for part in path.split("|")
            ]
            assert find(root, "|".join(parts)), path
    assert verbs == used


@pytest.mark.parametrize("name", ["steps", "benchmark"])
def test_workflows_leave_no_value_of_a_form_out(name: str) -> None:
    # A server refuses to run a workflow with "No value found for ..." (make_galaxy_workflow.py fills them).
    def left_out(form: Element, state: dict[str, Any]) -> list[str]:
        missing = []
        for item in form:
            if item.tag == "param" and item.get("type") != "data" and name_of(item) not in state:
                missing.append(name_of(item))
            elif item.tag == "section":
                missing += left_out(item, state.get(name_of(item), {}))
            elif item.tag == "repeat" and name_of(item) not in state:
                missing.append(name_of(item))
            elif item.tag == "conditional":
                inner = state.get(name_of(item), {})
                chosen = inner.get(name_of(item.find("param")))
                case = item.find(f"when[@value='{chosen}']")
                missing += [name_of(item)] if case is None else left_out(case, inner)
        return missing

    workflow = json.loads((TOOLS / "workflows" / f"{name}.ga").read_text("utf-8"))
    steps = [step for step in workflow["steps"].values() if step["type"] == "tool"]
    assert steps
    for step in steps:
        verb = step["tool_id"].removeprefix("scdrugmap_")
        form = tool(TOOLS / verb / f"{verb}.xml").find("inputs")
        assert left_out(form, json.loads(step["tool_state"])) == [], step["label"]


def test_every_workflow_has_a_test_and_a_check_on_the_server() -> None:
    workflows = {path.stem for path in (TOOLS / "workflows").glob("*.ga")}
    tests = {path.name.removesuffix("-tests.yml") for path in (TOOLS / "workflows").glob("*.yml")}
    checked = {
        check.name.removeprefix("workflow ") for check in CHECKS.CHECKS if "workflow" in check.name
    }
    assert workflows == tests == checked


def test_quick_server_tests_are_at_most_twelve_and_cover_every_tool() -> None:
    quick = SERVER.chosen_tests(quick=True)
    checks = [check for check in CHECKS.CHECKS if check.quick]
    assert len(quick) + len(checks) == 12
    tools = {test.tool.removeprefix("scdrugmap_") for test in quick}
    assert [check.name for check in checks] == ["workflow benchmark"]
    assert tools | set(SERVER.IN_QUICK_WORKFLOW) == set(STEPS)
    assert len(SERVER.chosen_tests(quick=False)) > len(quick)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"total": 1, "errors": 0, "failures": 0, "skips": 0}, ""),
        ({"total": 1, "errors": 0, "failures": 0, "skips": 1}, "'skips': 1"),
        ({"total": 0, "errors": 0, "failures": 0, "skips": 0}, "'total': 0"),
        ({"total": 1, "errors": 0, "failures": 1, "skips": 0}, "'failures': 1"),
        (None, "no result"),
    ],
)
def test_a_skipped_or_missing_result_is_a_failure(
    counts: dict[str, int] | None, said: str, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    if counts is not None:
        result.write_text(json.dumps({"results": counts, "tests": []}), "utf-8")
    assert said in SERVER.judge(result)
    assert bool(SERVER.judge(result)) == bool(said)

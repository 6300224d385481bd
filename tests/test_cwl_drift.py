"""The CWL tools and the command line say the same, and neither has what the other lacks."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from scdrugmap import __version__
from scdrugmap.cli import VERBS
from scdrugmap.cli.benchmark import command as benchmark
from scdrugmap.errors import (
    DataError,
    PluginError,
    ResourceError,
    UsageError,
    WeightsError,
)
from scdrugmap.registry import get_registry
from scdrugmap.run.cwl import CONTAINERS, RUNNERS
from scdrugmap.run.cwl_tools import NO_TOOL, STEPS, TOOLS, WORKFLOWS, find_command

CWL = Path(__file__).resolve().parent.parent / "cwl"
ALL = (*TOOLS, *STEPS)
DOCUMENTS = [path for name in ("tools", "workflows") for path in sorted((CWL / name).glob("*.cwl"))]


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text("utf-8"))


def tool(name: str) -> dict[str, Any]:
    return read(CWL / "tools" / f"{name}.cwl")


def options(verb: tuple[str, ...]) -> dict[str, click.Option]:
    """Return the options of a verb by the word that a tool would give."""
    return {
        max(item.secondary_opts or item.opts, key=len): item
        for item in find_command(verb).params
        if isinstance(item, click.Option)
    }


def bindings(kind: Any) -> Iterator[str]:
    """Give the prefixes inside a CWL type."""
    if isinstance(kind, list):
        for item in kind:
            yield from bindings(item)
    elif isinstance(kind, dict):
        if "prefix" in kind.get("inputBinding", {}):
            yield kind["inputBinding"]["prefix"]
        yield from bindings(kind.get("items"))


def prefixes(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the inputs of a tool by prefix."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in document["inputs"].values():
        if "prefix" in item.get("inputBinding", {}):
            found.setdefault(item["inputBinding"]["prefix"], []).append(item)
        for prefix in bindings(item["type"]):
            found.setdefault(prefix, []).append(item)
    return found


def always(document: dict[str, Any]) -> set[str]:
    """Return the options that a tool always gives."""
    words = document.get("arguments", [])
    return {word if isinstance(word, str) else word["prefix"] for word in words} & {
        word if isinstance(word, str) and word.startswith("--") else word["prefix"]
        for word in words
        if not isinstance(word, str) or word.startswith("--")
    }


def test_the_files_are_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_cwl", CWL.parent / "scripts/make_cwl.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.files()
    assert {path: path.read_text("utf-8") for path in made} == made, "run scripts/make_cwl.py"
    assert set((CWL / "tools").glob("*.cwl")) <= set(made), "a tool is there that nobody makes"


def test_every_verb_is_a_tool_or_has_a_reason_not_to_be() -> None:
    verbs = {item.verb[0] for item in ALL}
    assert not verbs & set(NO_TOOL)
    assert set(VERBS) <= verbs | set(NO_TOOL)
    steps = find_command(("step",))
    assert isinstance(steps, click.Group)
    assert {item.verb[1] for item in STEPS} == set(steps.commands)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_every_option_is_an_input_or_has_a_reason_not_to_be(item: Any) -> None:
    document = tool(item.name)
    there = {*prefixes(document), *always(document)}
    hidden = {f"--{name}" for name in item.not_exposed}
    known = options(item.verb)
    exposed = there - (set(item.extra) and {"--part"})
    assert set(known) - there == hidden - there, "options without an input and without a reason"
    assert not (hidden & exposed) - always(document), "options that are said not to be exposed"
    assert there <= set(known), "inputs for options that do not exist"
    assert hidden <= set(known), "reasons for options that do not exist"
    assert all(len(reason) > 10 for reason in item.not_exposed.values())


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_types_defaults_and_choices_are_those_of_the_options(item: Any) -> None:
    written = {f"--{one.option}" for one in item.writes}
    for name, inputs in prefixes(tool(item.name)).items():
        option = options(item.verb)[name]
        for given in inputs:
            kind = given["type"]
            assert (option.multiple) == (list(bindings(kind)) == [name]), name
            optional = kind[-1:] == "?" if isinstance(kind, str) else isinstance(kind, list)
            if name == "--part":  # two inputs of benchmark-finish that are always given
                continue
            needed = not optional and "default" not in given
            must = option.required or name.lstrip("-") in item.needs
            assert needed == (must and name not in written), f"{name}: required"
            plain = kind["items"] if isinstance(kind, dict) and "items" in kind else kind
            symbols = re.findall(r"'symbols': \[(.*?)\]", str(plain))
            choices = option.type.choices if isinstance(option.type, click.Choice) else ()
            assert [text.strip("'") for row in symbols for text in row.split(", ")] == list(choices)
            words = str(plain)
            if option.is_flag:
                assert kind == ("boolean?" if option.default is None else "boolean"), name
            elif isinstance(option.type, click.IntRange) or option.type is click.INT:
                assert words.rstrip("?") == "int", name
            elif isinstance(option.type, click.FloatRange) or option.type is click.FLOAT:
                assert words.rstrip("?") == "double", name
            if name in written:
                continue
            default = option.to_info_dict()["default"]
            if option.secondary_opts:
                default = not default
            assert given.get("default") == (None if default == () else default), f"{name}: default"


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_arguments_come_in_the_order_of_the_command(item: Any) -> None:
    arguments = [one for one in find_command(item.verb).params if isinstance(one, click.Argument)]
    placed = [
        one
        for one in tool(item.name)["inputs"].values()
        if "position" in one.get("inputBinding", {})
    ]
    assert len(placed) == len(arguments) == 1
    assert ("items" in placed[0]["type"]) == (arguments[0].nargs == -1)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_a_tool_tells_engines_what_it_needs_and_how_it_fails(item: Any) -> None:
    document = tool(item.name)
    assert document["baseCommand"] == ["scdrugmap", *item.verb]
    assert document["id"] == item.name
    needs = document["requirements"]["ResourceRequirement"]
    assert {"coresMin", "ramMin", "tmpdirMin", "outdirMin"} == set(needs)
    assert document["hints"]["ToolTimeLimit"]["timelimit"] >= 600
    assert document["hints"]["DockerRequirement"]["dockerPull"].endswith(f":{__version__}")
    packages = document["hints"]["SoftwareRequirement"]["packages"]
    assert packages["scdrugmap"]["version"] == [__version__]
    failing = {error.exit_code for error in (UsageError, DataError, WeightsError, PluginError)}
    assert set(document["permanentFailCodes"]) == failing
    assert document["temporaryFailCodes"] == [ResourceError.exit_code]
    assert needs_network(document) == (item.name == "predict")


def needs_network(document: dict[str, Any]) -> bool:
    return bool(document["hints"]["NetworkAccess"]["networkAccess"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_needs_no_javascript_and_knows_no_model(path: Path) -> None:
    text = path.read_text("utf-8")
    document = read(path)
    assert document["cwlVersion"] == "v1.2"
    assert "JavascriptRequirement" not in text
    references = re.findall(r"\$\(([^)]*)\)", text)
    assert all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", reference) for reference in references)
    assert "${" not in text
    code = str({**document, "doc": ""})
    names = set(get_registry().models) | set(get_registry().estimators)
    inputs = [str(item) for item in document["inputs"].values()]
    for name in sorted(names - {"constant"}):  # a word of the options of fine-tuning too
        assert not any(re.search(rf"\b{name}\b", text) for text in inputs), name
    assert code


def test_workflows_give_steps_only_inputs_that_they_have() -> None:
    for path in (CWL / "workflows").glob("*.cwl"):
        for name, step in read(path)["steps"].items():
            inner = read((path.parent / step["run"]).resolve())
            assert set(step["in"]) <= set(inner["inputs"]), f"{path.name}: {name}"
            assert set(step["out"]) <= set(inner["outputs"]), f"{path.name}: {name}"


def test_the_packaged_workflows_are_those_of_the_folder() -> None:
    for name in WORKFLOWS:
        assert (CWL / "workflows" / name).is_file()


def test_overrides_name_tools_that_exist_by_their_id() -> None:
    overrides = read(CWL / "overrides" / "gpu.yml")["cwltool:overrides"]
    assert len({id(item) for item in overrides.values()}) == len(overrides), "anchors break it"
    for target in overrides:
        path, _, name = target.partition("#")
        assert read((CWL / "workflows" / path).resolve())["id"] == name


@pytest.mark.parametrize("path", sorted((CWL / "jobs").glob("*.yml")), ids=lambda path: path.stem)
def test_an_example_job_fits_its_workflow(path: Path) -> None:
    workflow = read(CWL / "workflows" / f"{path.stem}.cwl")
    assert set(read(path)) <= set(workflow["inputs"])
    needed = {
        name
        for name, item in workflow["inputs"].items()
        if "default" not in item
        and not str(item["type"]).endswith("?")
        and "null" not in item["type"]
    }
    assert needed <= set(read(path))


def test_the_command_offers_the_engines_that_there_are() -> None:
    offered = {
        option.name: tuple(option.type.choices)
        for option in benchmark.params
        if isinstance(option.type, click.Choice)
    }
    assert offered["runner"] == RUNNERS
    assert offered["container"] == CONTAINERS

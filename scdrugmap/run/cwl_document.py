"""Turn a verb of the command line into a CWL tool: its options are the tool's inputs.

What a command line does not know (which paths are read and which are written, what a step needs of
a machine, what has no meaning in a workflow) is said in :mod:`scdrugmap.run.cwl_tools`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

IMAGE = "scdrugmap"
"""Name of the container image; its tag is the version."""

NAMESPACE = "http://commonwl.org/cwltool#"

ARGUMENTS = {
    "input": "File of cells: h5ad or 10x h5, or a folder of zarr or 10x.",
    "inputs": "Files of cells: h5ad or 10x h5, or folders of zarr or 10x.",
    "shards": "Shards, in any order.",
    "predictions": "Tables made by predict.",
    "runs": "Folders of finished benchmarks.",
    "config": "Configuration of the benchmark.",
}
"""What the arguments of verbs are; a command line says it in its usage line."""

CELLS = ["File", "Directory"]
"""CWL type of cells: h5ad and 10x files, or zarr and 10x folders."""

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # $(runtime.cores) is a number, which an environment cannot hold
    "SCDRUGMAP_CACHE": "$(runtime.tmpdir)/cache",
    "MPLCONFIGDIR": "$(runtime.tmpdir)/matplotlib",
}
_PERMANENT, _TEMPORARY = [2, 3, 4], [5]  # exit codes of scdrugmap.errors
_WIDTH = 100
_BLOCKS = ("EnvVarRequirement", "envDef")


@dataclass(frozen=True)
class Written:
    """A file or folder that a tool writes.

    Attributes
    ----------
    option : str
        Option that names it; an input of the tool is called the same.
    name : str
        Id of the tool's output.
    default : str or None
        Name that the file gets; None: it is not written unless it is named.
    type : str
        CWL type.
    glob : str
        Where it is, if not under the name that the option gives.
    fixed : bool
        The name is no input: `default` is what the option always gets.
    """

    option: str
    name: str
    default: str | None = None
    type: str = "File"
    glob: str = ""
    fixed: bool = False


@dataclass(frozen=True)
class Tool:
    """What a CWL tool has that its verb cannot tell.

    Attributes
    ----------
    name : str
        Id and name of the file.
    verb : tuple of str
        Words of the command.
    writes : tuple of Written
    reads : dict of str to CWL type
        Options and arguments that name what is read; one item's type, where several are taken.
    not_exposed : dict of str to str
        Options that are no inputs, each with the reason.
    needs : tuple of str
        Options that must be given, since what could stand for them is not exposed.
    always : tuple of str
        What stands on every command line.
    extra : dict
        More inputs, as CWL.
    ram_mib, minutes : int
        What the step gets at least, and at most.
    network : bool or str
        Whether it may use the network; a CWL parameter reference.
    """

    name: str
    verb: tuple[str, ...]
    writes: tuple[Written, ...]
    reads: Mapping[str, Any]
    not_exposed: Mapping[str, str]
    needs: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    ram_mib: int = 2048
    minutes: int = 240
    network: bool | str = False
    stdout: Written | None = None


def option_name(parameter: click.Parameter) -> str:
    """Return the long name of an option without dashes in front, or the name of an argument."""
    if isinstance(parameter, click.Argument):
        return "input" if parameter.name == "source" else str(parameter.name)
    # of --models/--no-models, which says yes by default, the tool has no_models
    longest: str = max(parameter.secondary_opts or parameter.opts, key=len)
    return longest.lstrip("-")


def input_id(name: str) -> str:
    """Return the id of the input of an option."""
    return name.replace("-", "_")


def default_of(parameter: click.Parameter) -> Any:
    """Return the default of an option as CWL has it; None: there is none."""
    value = parameter.to_info_dict()["default"]
    if parameter.secondary_opts:
        return not value
    return None if callable(value) or value == () else value


def make_tool(tool: Tool, command: click.Command, version: str) -> dict[str, Any]:
    """Return a CommandLineTool (CWL v1.2) of a verb.

    Parameters
    ----------
    tool : Tool
    command : click.Command
        Its verb.
    version : str
        Of scdrugmap.
    """
    parameters = {option_name(parameter): parameter for parameter in command.params}
    inputs: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name not in tool.not_exposed and name not in _names(tool, fixed=True):
            inputs[input_id(name)] = _input(tool, name, parameter)
    document: dict[str, Any] = {
        "cwlVersion": "v1.2",
        "class": "CommandLineTool",
        "id": tool.name,
        "label": _first_sentence(command),
        "doc": _about(command),
        "baseCommand": ["scdrugmap", *tool.verb],
        "requirements": {
            "ResourceRequirement": {
                "coresMin": 1,
                "ramMin": tool.ram_mib,
                "tmpdirMin": 1024,
                "outdirMin": 1024,
            },
            "EnvVarRequirement": {"envDef": dict(_ENVIRONMENT)},
        },
        "hints": {
            "SoftwareRequirement": {"packages": {"scdrugmap": {"version": [version]}}},
            "DockerRequirement": {"dockerPull": f"{IMAGE}:{version}"},
            "ToolTimeLimit": {"timelimit": 60 * tool.minutes},
            "NetworkAccess": {"networkAccess": tool.network},
        },
        "inputs": {**inputs, **tool.extra},
    }
    arguments = [*tool.always, *_fixed(tool)]
    if arguments:
        document["arguments"] = arguments
    document["outputs"] = {item.name: _output(item) for item in tool.writes}
    if tool.stdout is not None:
        document["inputs"][tool.stdout.option] = {
            "type": "string",
            "default": tool.stdout.default,
            "doc": "Name of the file of what is printed.",
        }
        document["stdout"] = f"$(inputs.{tool.stdout.option})"
        document["outputs"][tool.stdout.name] = {"type": "stdout"}
    document["successCodes"] = [0]
    document["permanentFailCodes"] = _PERMANENT
    document["temporaryFailCodes"] = _TEMPORARY
    return document


def _names(tool: Tool, *, fixed: bool) -> set[str]:
    return {item.option for item in tool.writes if item.fixed == fixed}


def _fixed(tool: Tool) -> list[Any]:
    return [
        {"prefix": f"--{item.option}", "valueFrom": item.default}
        for item in tool.writes
        if item.fixed
    ]


def _input(tool: Tool, name: str, parameter: click.Parameter) -> dict[str, Any]:
    """Return one input: its type, where it stands on the command line, its default and help."""
    written = next((item for item in tool.writes if item.option == name), None)
    kind = "string" if written else tool.reads.get(name) or _kind(name, parameter)
    default = written.default if written else default_of(parameter)
    binding: dict[str, Any] = {"prefix": f"--{name}"}
    made: dict[str, Any] = {}
    if isinstance(parameter, click.Argument):
        several = parameter.nargs == -1
        made["type"] = {"type": "array", "items": kind} if several else kind
        made["inputBinding"] = {"position": 1}
        made["doc"] = ARGUMENTS[name]
        return made
    if getattr(parameter, "multiple", False):
        array = {"type": "array", "items": kind, "inputBinding": binding}
        made["type"] = array if parameter.required else ["null", array]
        made["inputBinding"] = {}
    else:
        required = (parameter.required or name in tool.needs) and written is None
        made["type"] = kind if required or default is not None else _optional(kind)
        made["inputBinding"] = binding
    if default is not None:
        made["default"] = default
    text = " ".join(str(getattr(parameter, "help", "") or "").split())
    made["doc"] = f"Switch off: {text}" if parameter.secondary_opts else text
    return made


def _kind(name: str, parameter: click.Parameter) -> Any:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return {"type": "enum", "symbols": list(kind.choices)}
    if isinstance(kind, click.Path):
        raise ValueError(f"nobody says whether {name} is read or written")
    if isinstance(kind, click.types.BoolParamType):
        return "boolean"
    if isinstance(kind, click.IntRange) or kind is click.INT:
        return "int"
    if isinstance(kind, click.FloatRange) or kind is click.FLOAT:
        return "double"
    return "string"


def _optional(kind: Any) -> Any:
    if isinstance(kind, str):
        return f"{kind}?"
    return ["null", *(kind if isinstance(kind, list) else [kind])]


def _output(item: Written) -> dict[str, Any]:
    optional = item.default is None and item.type != "File[]"
    glob = item.glob or (str(item.default) if item.fixed else f"$(inputs.{input_id(item.option)})")
    return {
        "type": f"{item.type}?" if optional else item.type,
        "outputBinding": {"glob": glob},
    }


def _first_sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def _about(command: click.Command) -> str:
    parts = (" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    return "\n\n".join(textwrap.fill(part, _WIDTH - 4) for part in parts) + "\n"


def to_yaml(document: Mapping[str, Any], heading: Iterable[str]) -> str:
    """Return a CWL document as text: nested maps in blocks, bindings and short types in one line.

    Parameters
    ----------
    document : mapping
    heading : iterable of str
        Comments on top.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(_laid_out(document), buffer)
    lines = ["#!/usr/bin/env cwl-runner", *(f"# {line}" for line in heading)]
    return "\n".join(lines) + "\n" + buffer.getvalue()


def _laid_out(value: Any, key: str = "", depth: int = 0) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, Mapping):
        laid = CommentedMap(
            {name: _laid_out(item, str(name), depth + 1) for name, item in value.items()}
        )
        if depth > 1 and key not in _BLOCKS and "doc" not in value:
            laid.fa.set_flow_style()
        return laid
    if isinstance(value, list | tuple):
        rows = CommentedSeq([_laid_out(item, "", depth + 1) for item in value])
        rows.fa.set_flow_style()
        return rows
    if key == "doc" and depth == 1:
        return LiteralScalarString(value)
    return value

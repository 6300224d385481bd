"""Make galaxy_tools/options.xml: parameters of the Galaxy tools, from the command line's options.

Labels, defaults, choices, ranges and required-ness are those of the command line. Which option
stands where is decided in galaxy_tools/options.toml. Run again after a change of a verb's options;
with ``--check`` nothing is written, and the exit code is 1 if the file is not current.
"""

from __future__ import annotations

import base64
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import click

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "galaxy_tools"
TARGET = TOOLS / "options.xml"
PICTURE = TOOLS / "static" / "images" / "data_flow.png"

READING = "reading"
"""The group that all verbs which read cells share."""

_GROUPS_LESS = ("by_hand", "not_exposed")
_WIDTH = 720  # pixels
_LINE = 120  # characters
_ALT = (
    "check looks a file over; embed turns cells into vectors; split makes folds; train makes a "
    "predictor; predict answers for each cell; evaluate scores; explain ranks genes; benchmark does "
    "all that for many models, and report makes a page of it"
)


def verbs(placement: dict[str, Any]) -> list[str]:
    """Return the verbs that are Galaxy tools."""
    return [name for name in placement if name not in ("reasons", "shared")]


def options_of(verb: str) -> dict[str, click.Parameter]:
    """Return the options of a verb by their long spelling, arguments by their metavar."""
    command = import_module(f"scdrugmap.cli.{verb}").command
    found = {}
    for item in command.params:
        if isinstance(item, click.Option):
            found[max(item.opts, key=len)] = item
        else:
            found[item.metavar or item.name] = item
    return found


def groups_of(verb: str, placement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the groups of generated parameters of a verb."""
    groups = {name: group for name, group in placement[verb].items() if name not in _GROUPS_LESS}
    if any(option in options_of(verb) for option in placement["shared"][READING]["options"]):
        groups[READING] = placement["shared"][READING]
    return groups


def name_of(option: str) -> str:
    """Return the name that Galaxy gives the parameter of an option."""
    return option.lstrip("-").replace("-", "_")


def label_of(item: click.Option) -> str:
    """Return the help of an option without what Galaxy shows by other means."""
    text = re.sub(r"\s*\[default: (?P<value>[^\]]*)\]", "", item.help or "")
    text = text.removeprefix("Fine-tuning: ").removeprefix("Text models: ").strip().rstrip(".")
    text = text.removesuffix("; repeatable").replace("; repeatable.", ".").replace("`", "'")
    return text[:1].upper() + text[1:]


def default_of(item: click.Option) -> Any:
    """Return the default of an option; None where there is none."""
    value = item.get_default(click.Context(click.Command("none")), call=False)
    return None if value is None or repr(value) == "Sentinel.UNSET" else value


def parameter(option: str, item: click.Option) -> list[str]:
    """Return the lines of a ``<param>`` or ``<repeat>``."""
    label = f"label={quoteattr(label_of(item))}"
    if item.multiple:
        return _repeat(option, item)
    head = f"<param argument={quoteattr(option)}"
    default = default_of(item)
    kind = item.type
    optional = "" if item.required or default is not None else ' optional="true"'
    if item.is_flag:
        on, off = option, (item.secondary_opts or [""])[0]
        checked = "true" if default else "false"
        return [
            f'{head} type="boolean" truevalue="{on}" falsevalue="{off}" checked="{checked}" {label}/>'
        ]
    if isinstance(kind, click.Choice):
        lines = [f'{head} type="select"{optional} {label}>']
        for choice in kind.choices:
            chosen = ' selected="true"' if choice == default else ""
            lines.append(f'    <option value="{choice}"{chosen}>{choice}</option>')
        return [*lines, "</param>"]
    if kind.name in ("integer", "integer range", "float", "float range"):
        number = "integer" if kind.name.startswith("integer") else "float"
        value = "" if default is None else str(default)
        limits = "".join(
            f' {name}="{limit}"'
            for name, limit in (
                ("min", getattr(kind, "min", None)),
                ("max", getattr(kind, "max", None)),
            )
            if limit is not None
        )
        return [f'{head} type="{number}"{optional} value="{value}"{limits} {label}/>']
    if item.metavar == "COLUMN":
        return [
            f'{head} type="select"{optional} {label}>',
            '    <expand macro="columns_of_cells"/>',
            "</param>",
        ]
    value = "" if default is None else f" value={quoteattr(str(default))}"
    return [
        f'{head} type="text"{optional}{value} {label}>',
        '    <expand macro="plain_text"/>',
        "</param>",
    ]


def _repeat(option: str, item: click.Option) -> list[str]:
    title = f"title={quoteattr(label_of(item))}"
    lines = [f'<repeat name="{name_of(option)}" {title}>']
    if item.metavar == "COLUMN=VALUE":
        lines += [
            f'    <param name="column" type="select" label="Column ({option})">',
            '        <expand macro="columns_of_cells"/>',
            "    </param>",
        ]
    lines += [
        f'    <param name="value" type="text" optional="false" label={quoteattr(f"{item.metavar} ({option})")}>'
        if item.metavar != "COLUMN=VALUE"
        else '    <param name="value" type="text" optional="false" label="Value">',
        '        <expand macro="needed_text"/>',
        "    </param>",
        "</repeat>",
    ]
    return lines


def command_lines(option: str, item: click.Option, where: str) -> list[str]:
    """Return the Cheetah lines that pass a parameter on."""
    place = f"${where}['{name_of(option)}']"
    if item.multiple:
        value = (
            "$item['column']=$item['value']" if item.metavar == "COLUMN=VALUE" else "$item['value']"
        )
        return [f"#for $item in {place}", f"    {option} '{value}'", "#end for"]
    if item.is_flag:
        return [place]
    if item.required or default_of(item) is not None:
        return [f"{option} '{place}'"]
    return [f"#if str({place}) not in ('', 'None')", f"    {option} '{place}'", "#end if"]


def group(verb: str, name: str, table: dict[str, Any]) -> list[str]:
    """Return the macro of a group's parameters, and the token of its part of the command."""
    options = options_of(verb)
    label = name if name == READING else f"{verb}_{name}"
    where = f"{table['path']}['{name}']" if "path" in table else name
    lines = [f'    <xml name="{label}">']
    command = []
    for option in table["options"]:
        item = options[option]
        lines += [f"        {line}" for line in parameter(option, item)]
        command += command_lines(option, item, where)
    return [
        *lines,
        "    </xml>",
        f'    <token name="@{label.upper()}@"><![CDATA[',
        *command,
        "    ]]></token>",
    ]


def headers() -> list[str]:
    """Return tokens with the columns of the tables."""
    from scdrugmap.evaluation import tables

    names = {
        "SPLITS": tables.SPLIT_COLUMNS,
        "PREDICTIONS": tables.PREDICTION_COLUMNS,
        "METRICS": (*tables.METRIC_COLUMNS, tables.FACET),
    }
    return [
        f'    <token name="@{name}_HEADER@">{",".join(columns)}</token>'
        for name, columns in names.items()
    ]


def picture() -> list[str]:
    """Return the token of the picture of the data flow, which stands in every tool's help.

    Galaxy serves pictures of tools from a tool shed only, hence the data URI; it rewrites every
    ``.. image::`` with a single space.
    """
    data = base64.b64encode(PICTURE.read_bytes()).decode("ascii")
    return [
        '    <token name="@DATA_FLOW@"><![CDATA[',
        "..  image:: data:image/png;base64,",
        *(f"    {data[at : at + _LINE]}" for at in range(0, len(data), _LINE)),
        f"    :width: {_WIDTH}",
        f"    :alt: {_ALT}",
        "",
        "    ]]></token>",
    ]


def content(placement: dict[str, Any]) -> str:
    """Return the whole file."""
    lines = ["<!-- Made by scripts/make_galaxy_options.py: do not edit. -->", "<macros>"]
    shared = False
    for verb in verbs(placement):
        for name, table in groups_of(verb, placement).items():
            if name == READING and shared:
                continue
            shared = shared or name == READING
            lines += group(verb, name, table)
    lines += [*headers(), *picture()]
    return "\n".join([*lines, "</macros>", ""])


def main() -> int:
    """Write the file, or compare it."""
    placement = tomllib.loads((TOOLS / "options.toml").read_text("utf-8"))
    text = content(placement)
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text("utf-8") != text:
            sys.stderr.write(f"{TARGET.name} is not current: run scripts/{Path(__file__).name}\n")
            return 1
        return 0
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The CWL tools: one per verb, and one per step of a benchmark.

``scripts/make_cwl.py`` writes them into ``cwl/``, and ``benchmark --executor cwl`` into a run folder.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import click

from scdrugmap.run.cwl_document import CELLS, Tool, Written, make_tool, to_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKFLOWS = ("benchmark.cwl", "benchmark-network.cwl")
"""Workflows that are part of the package, since the executor needs them."""

HEAVY_MIB = 6144
"""Memory of steps in which a network or an estimator is at work, unless overridden."""
LONG_MINUTES = 24 * 60

_OVERWRITE = {"overwrite": "a tool writes into an empty folder"}
_QUIET = {"quiet": "what a step says belongs into the engine's log"}
_HIDDEN = {**_OVERWRITE, **_QUIET}
_NO_JSON = {"json": "the same is in the files that are written"}
_WEIGHTS = {"weights": ["string", "Directory"]}
_PLACES = {"config": "File", "data": CELLS, "weights": "Directory"}

TOOLS = (
    Tool(
        "check",
        ("check",),
        writes=(),
        reads={"input": CELLS},
        not_exposed={**_QUIET, "json": "always given: the output is read by programs"},
        always=("--json",),
        stdout=Written("output", "found", "check.json"),
        ram_mib=4096,
    ),
    Tool(
        "embed",
        ("embed",),
        writes=(
            Written("output", "embedded", "embedded.h5ad"),
            Written("genes", "gene_embeddings"),
        ),
        reads={"input": CELLS, **_WEIGHTS},
        not_exposed={
            **_HIDDEN,
            "into": "inputs of a tool are read-only",
            "no-cache": "the cache is the step's own temporary folder",
        },
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
    ),
    Tool(
        "merge",
        ("merge",),
        writes=(Written("output", "merged", "embedded.h5ad"),),
        reads={"shards": "File"},
        not_exposed=_OVERWRITE,
        ram_mib=4096,
    ),
    Tool(
        "split",
        ("split",),
        writes=(Written("output", "splits", "splits.tsv"),),
        reads={"inputs": CELLS},
        not_exposed={
            **_HIDDEN,
            **_NO_JSON,
            "samplesheet": "it names files by their place, and engines move them",
        },
        needs=("label",),
        ram_mib=4096,
    ),
    Tool(
        "train",
        ("train",),
        writes=(Written("output", "predictor", "predictor.zip"),),
        reads={"inputs": CELLS, "splits": "File", "embeddings": "File", **_WEIGHTS},
        not_exposed={
            **_HIDDEN,
            "resume": "an engine starts a step again in an empty folder",
        },
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
    ),
    Tool(
        "predict",
        ("predict",),
        writes=(
            Written("output", "predictions", "predictions.tsv"),
            Written("h5ad", "annotated"),
            Written("samples-table", "samples"),
            Written("cells-table", "cells"),
            Written("summary", "summarized"),
        ),
        reads={"input": CELLS, "predictor": "File", "splits": "File", **_WEIGHTS},
        not_exposed={
            **_HIDDEN,
            "dry-run": "it prints an estimate and writes no file; run it by hand",
        },
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
        network="$(inputs.allow_network)",
    ),
    Tool(
        "evaluate",
        ("evaluate",),
        writes=(
            Written("output", "metrics", "metrics.tsv"),
            Written("comparisons", "compared"),
        ),
        reads={"predictions": "File", "splits": "File"},
        not_exposed=_HIDDEN,
        ram_mib=4096,
    ),
    Tool(
        "explain",
        ("explain",),
        writes=(
            Written("output", "genes", "genes.tsv"),
            Written("figures", "drawn", type="Directory"),
            Written("summary", "summarized"),
        ),
        reads={"input": CELLS, "predictor": "File", **_WEIGHTS},
        not_exposed={**_HIDDEN, **_NO_JSON},
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
    ),
    Tool(
        "report",
        ("report",),
        writes=(
            Written("output", "html", "report.html"),
            Written("figures", "drawn", type="Directory"),
            Written("crate", "packed"),
        ),
        reads={"runs": "Directory"},
        not_exposed=_OVERWRITE,
    ),
)
"""One tool per verb that makes something of files."""

NO_TOOL = {
    "doctor": "it tells about the machine it runs on",
    "convert": "it prepares cells once, before there is a workflow",
    "plan": "it prints an estimate for a person; steps of a workflow get theirs from step plan",
    "benchmark": "it is the workflow benchmark.cwl",
    "throughput": "it tells about the machine it runs on",
    "models": "it lists what is installed",
    "datasets": "it lists and prepares cells before there is a workflow",
    "plugins": "it lists what is installed",
    "weights": "it changes the installation",
    "predictor": "it shows a file to a person",
    "cache": "it shows the installation",
    "serve": "it answers until it is stopped",
}
"""Verbs that are no tool, each with the reason."""

_TASK = Written("output", "part", "$(inputs.task.nameroot).tsv.gz", "File?", fixed=True)

STEPS = (
    Tool(
        "benchmark-plan",
        ("step", "plan"),
        writes=(Written("output", "splits", "plan", "Directory", "plan/splits", fixed=True),),
        reads=_PLACES,
        not_exposed={
            **_QUIET,
            "output-object": "always given: how the engine reads the plan",
        },
        always=("--output-object", "cwl.output.json"),
        ram_mib=4096,
    ),
    Tool(
        "benchmark-embed",
        ("step", "embed"),
        writes=(Written("output", "embedded", "shard.npz", fixed=True),),
        reads={**_PLACES, "splits": "Directory"},
        not_exposed=_QUIET,
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
    ),
    Tool(
        "benchmark-join",
        ("step", "join"),
        writes=(Written("output", "embeddings", "embeddings.npy", fixed=True),),
        reads={"shards": "File", "splits": "Directory"},
        not_exposed={},
        ram_mib=4096,
    ),
    *(
        Tool(
            name,
            ("step", "train"),
            writes=(_TASK,),
            reads={**_PLACES, "splits": "Directory", "task": "File", "embeddings": "File"},
            not_exposed=_QUIET,
            ram_mib=HEAVY_MIB,
            minutes=LONG_MINUTES,
        )
        for name in ("benchmark-train", "benchmark-tune")
    ),
    Tool(
        "benchmark-finish",
        ("step", "finish"),
        writes=(Written("output", "run", "run", "Directory"),),
        reads={**_PLACES, "part": ["null", "File"], "embeddings": "File"},
        not_exposed={**_QUIET, "part": "is given by parts and network_parts"},
        extra={
            "parts": {
                "type": {
                    "type": "array",
                    "items": ["null", "File"],
                    "inputBinding": {"prefix": "--part"},
                },
                "inputBinding": {},
                "doc": "Predictions of tasks; null where a task had none.",
            },
            "network_parts": {
                "type": {
                    "type": "array",
                    "items": {
                        "type": "array",
                        "items": ["null", "File"],
                        "inputBinding": {"prefix": "--part"},
                    },
                },
                "inputBinding": {},
                "doc": "The same, by network.",
            },
        },
        ram_mib=HEAVY_MIB,
        minutes=LONG_MINUTES,
    ),
)
"""One tool per step of a benchmark; benchmark-tune is benchmark-train where networks are at work."""

_PLAN_OUTPUTS = {
    "shard_names": "string[]",
    "networks": "int[]",
    "network_tasks": {"type": {"type": "array", "items": {"type": "array", "items": "File"}}},
    "tuning_tasks": "File[]",
    "other_tasks": "File[]",
}


def find_command(verb: tuple[str, ...]) -> click.Command:
    """Return the command of a verb, as in ``("step", "plan")``."""
    from scdrugmap.cli import cli

    found: click.Command = cli
    for word in verb:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None, f"there is no verb {word}"
        found = inner
    return found


def tool_files(tools: tuple[Tool, ...] = (*TOOLS, *STEPS)) -> Iterator[tuple[str, str]]:
    """Give name and content of the file of each tool."""
    from scdrugmap import __version__

    for tool in tools:
        document = make_tool(tool, find_command(tool.verb), __version__)
        if tool.name == "benchmark-plan":  # these come from cwl.output.json
            document["outputs"].update(
                {
                    name: kind if isinstance(kind, dict) else {"type": kind}
                    for name, kind in _PLAN_OUTPUTS.items()
                }
            )
        heading = (
            f"scdrugmap {' '.join(tool.verb)}, as a CWL tool.",
            "Made by scripts/make_cwl.py from the options of the command line: edit those, and",
            "scdrugmap/run/cwl_tools.py for what they cannot tell.",
        )
        yield f"{tool.name}.cwl", to_yaml(document, heading)


def workflow_files() -> Iterator[tuple[str, str]]:
    """Give name and content of each workflow that the executor needs."""
    for name in WORKFLOWS:
        yield name, resources.files("scdrugmap.run").joinpath("workflows", name).read_text("utf-8")

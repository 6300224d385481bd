"""Make the workflows in galaxy_tools/workflows.

benchmark.ga goes from cells to a report in two steps; steps.ga does the benchmark step by step: an
estimator and a model, fold by fold, compared.

Runs in the environment of planemo, which has gxformat2 (``make test-galaxy`` makes it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galaxy.util import xml_macros
from gxformat2.converter import python_to_workflow
from gxformat2.interface import ImporterGalaxyInterface

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "galaxy_tools"
TARGET = TOOLS / "workflows"
VERSION = "0.1.0+galaxy0"
FOLDS = 3
CONNECTED = {"__class__": "ConnectedValue"}

CELLS = {
    "cells": ("data", None, "AnnData with the counts of labelled cells"),
    "label": ("text", "response", "Column with the response"),
    "group": ("text", "patient", "Column of patients: no patient is on both sides of a fold"),
}
STEP_INPUTS = {
    **CELLS,
    "estimator": ("text", "hvg-logreg", "The baseline, trained on expression"),
    "model": ("text", "randproj", "The model that embeds the cells, one that needs no weights"),
}
BENCHMARK_INPUTS = {
    **CELLS,
    "models": ("text", "hvg-logreg,randproj", "Estimators, and models that need no weights"),
    "folds": ("integer", 5, "Folds"),
    "seeds": ("text", "0,1,2", "Seeds of training"),
    "controls": ("text", "all", "Controls: all, none, or names with commas between them"),
    "draws": ("integer", 2000, "Bootstrap draws of the intervals"),
}


class NoServer(ImporterGalaxyInterface):
    """What the converter would ask a server for; nothing of it is needed."""

    def import_workflow(self, workflow: dict[str, Any], **kwds: Any) -> None:
        """Refuse."""
        raise NotImplementedError("nothing is imported into a server here")


DOCS = {
    "split": "Folds that do not divide patients",
    "embed": "One vector per cell",
    "train": "A predictor of the training cells of one fold",
    "predict": "p(sensitive) of every cell, with its role in the fold",
    "evaluate": "Figures with intervals, and the baseline against the model",
    "benchmark": "Models, baselines and controls on every fold, scored and compared",
    "report": "The page, every figure as a file, and a package to publish",
}


def value_of(param: Any) -> Any:
    """Return what a form has in a parameter that nobody touched."""
    kind, optional = param.get("type"), param.get("optional") == "true"
    if kind == "boolean":
        return param.get("checked") == "true"
    if kind == "select":
        options = param.findall("option")
        chosen = [item.get("value") for item in options if item.get("selected") == "true"]
        if param.get("multiple") == "true":
            return chosen or None
        return (chosen or [None if optional or not options else options[0].get("value")])[0]
    if kind == "data":
        return None
    return param.get("value") or (None if optional else "")


def completed(form: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a form: what is given, and the form's own values for all the rest.

    A server warns of, and refuses by its API, a workflow that leaves values out.
    """
    state: dict[str, Any] = {}
    for item in form:
        if item.tag not in ("param", "section", "conditional", "repeat"):
            continue
        name = item.get("name") or item.get("argument").lstrip("-").replace("-", "_")
        if item.tag == "param":
            if item.get("type") != "data" or name in given:
                state[name] = given.get(name, value_of(item))
        elif item.tag == "section":
            state[name] = completed(item, given.get(name, {}))
        elif item.tag == "repeat":
            least = int(item.get("min") or 0)
            rows = given.get(name, [{} for _ in range(least)])
            state[name] = [
                {"__index__": index, **completed(item, row)} for index, row in enumerate(rows)
            ]
        else:
            inner = given.get(name, {})
            select = item.find("param")
            key = select.get("name") or select.get("argument").lstrip("-").replace("-", "_")
            chosen = inner.get(key, value_of(select))
            cases = item.findall("when")
            case = [when.get("value") for when in cases].index(chosen)
            state[name] = {
                key: chosen,
                "__current_case__": case,
                **completed(cases[case], inner),
            }
    return state


def step(verb: str, ins: dict[str, Any], state: dict[str, Any], label: str) -> dict[str, Any]:
    """Return a step of a tool."""
    form = xml_macros.load(str(TOOLS / verb / f"{verb}.xml")).getroot().find("inputs")
    return {
        "tool_id": f"scdrugmap_{verb}",
        "tool_version": VERSION,
        "label": label,
        "doc": DOCS[verb],
        "in": ins,
        "state": completed(form, state),
    }


def workflow(
    label: str,
    doc: str,
    given: dict[str, tuple[str, Any, str]],
    outputs: tuple[str, ...],
    steps: dict[str, Any],
) -> dict[str, Any]:
    """Return a workflow in Format 2."""
    inputs = {}
    for name, (kind, default, text) in given.items():
        inputs[name] = {"type": kind, "doc": text}
        if default is not None:
            inputs[name] |= {"default": default, "optional": True}
    return {
        "class": "GalaxyWorkflow",
        "label": label,
        "doc": doc,
        "license": "Apache-2.0",
        "creator": [{"class": "Organization", "name": "The scDrugMap developers"}],
        "inputs": inputs,
        "outputs": {name.partition("/")[2]: {"outputSource": name} for name in outputs},
        "steps": steps,
    }


def benchmark() -> dict[str, Any]:
    """Return the workflow of two steps, in Format 2."""
    connected = {
        "label": "label",
        "models": "models",
        "columns|group": "group",
        "division|folds": "folds",
        "training|seeds": "seeds",
        "training|draws": "draws",
        "controls|controls": "controls",
    }
    state: dict[str, Any] = {}
    for path in connected:
        section, _, name = path.rpartition("|")
        (state.setdefault(section, {}) if section else state)[name] = dict(CONNECTED)
    return workflow(
        "scDrugMap benchmark",
        "Trains models, baselines and controls on folds that do not divide patients, predicts the "
        "test cells, scores and compares, and makes a report.",
        BENCHMARK_INPUTS,
        (
            "benchmark/metrics",
            "benchmark/comparisons",
            "benchmark/run",
            "report/report",
            "report/figures",
            "report/crate",
        ),
        {
            "benchmark": step("benchmark", {"input": "cells", **connected}, state, "benchmark"),
            "report": step(
                "report", {"runs": "benchmark/run"}, {"more": ["figures", "crate"]}, "report"
            ),
        },
    )


def step_by_step() -> dict[str, Any]:
    """Return the workflow of single steps, in Format 2."""
    network = {"source": "named", "model": dict(CONNECTED), "random": False}
    steps: dict[str, Any] = {
        "split": step(
            "split",
            {"input": "cells", "label": "label", "columns|group": "group"},
            {
                "label": dict(CONNECTED),
                "columns": {"group": dict(CONNECTED)},
                "division": {"folds": FOLDS},
            },
            "split",
        ),
        "embed": step(
            "embed",
            {"input": "cells", "networks_0|network|model": "model"},
            {"networks": [{"network": network}]},
            "embed",
        ),
    }
    answers = []
    for fold in range(FOLDS):
        given = {"input": "cells", "splits": "split/splits"}
        steps[f"train baseline {fold}"] = step(
            "train",
            {**given, "learner|estimator": "estimator"},
            {"fold": fold, "learner": {"strategy": "estimator", "estimator": dict(CONNECTED)}},
            f"train baseline {fold}",
        )
        steps[f"train model {fold}"] = step(
            "train",
            {
                **given,
                "learner|network|model": "model",
                "learner|embeddings": "embed/embedded",
            },
            {"fold": fold, "learner": {"strategy": "frozen", "network": network}},
            f"train model {fold}",
        )
        for who in ("baseline", "model"):
            steps[f"predict {who} {fold}"] = step(
                "predict",
                {**given, "who|predictor": f"train {who} {fold}/predictor"},
                {"who": {"source": "predictor"}},
                f"predict {who} {fold}",
            )
            answers.append(f"predict {who} {fold}/predictions")
    steps["evaluate"] = step(
        "evaluate",
        {"predictions": {"source": answers}, "splits": "split/splits"},
        {"compare": {"wanted": "yes"}},
        "evaluate",
    )
    return workflow(
        "scDrugMap, step by step",
        "Trains a baseline and a model on folds that do not divide patients, predicts the "
        "test cells, scores and compares both.",
        STEP_INPUTS,
        ("split/splits", "evaluate/metrics", "evaluate/comparisons"),
        steps,
    )


def main() -> None:
    """Write the workflows."""
    TARGET.mkdir(exist_ok=True)
    for name, content in (("benchmark", benchmark()), ("steps", step_by_step())):
        made = python_to_workflow(content, NoServer(), None)
        made["release"] = "0.1.0"
        made.pop("uuid", None)
        text = json.dumps(made, indent=4, sort_keys=True) + "\n"
        (TARGET / f"{name}.ga").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

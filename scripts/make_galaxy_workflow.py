"""Make galaxy_tools/workflows/benchmark.ga: an estimator and a model, fold by fold, compared.

Runs in the environment of planemo, which has gxformat2 (``make test-galaxy`` makes it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gxformat2.converter import python_to_workflow
from gxformat2.interface import ImporterGalaxyInterface

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "galaxy_tools" / "workflows" / "benchmark.ga"
VERSION = "0.1.0+galaxy0"
FOLDS = 3
CONNECTED = {"__class__": "ConnectedValue"}

INPUTS = {
    "cells": ("data", None, "AnnData with the counts of labelled cells"),
    "label": ("text", "response", "Column with the response"),
    "group": ("text", "patient", "Column of patients: no patient is on both sides of a fold"),
    "estimator": ("text", "hvg-logreg", "The baseline, trained on expression"),
    "model": ("text", "randproj", "The model that embeds the cells, one that needs no weights"),
}


class NoServer(ImporterGalaxyInterface):
    """What the converter would ask a server for; nothing of it is needed."""

    def import_workflow(self, workflow: dict[str, Any], **kwds: Any) -> None:
        """Refuse."""
        raise NotImplementedError


DOCS = {
    "split": "Folds that do not divide patients",
    "embed": "One vector per cell",
    "train": "A predictor of the training cells of one fold",
    "predict": "p(sensitive) of every cell, with its role in the fold",
    "evaluate": "Figures with intervals, and the baseline against the model",
}


def step(verb: str, ins: dict[str, Any], state: dict[str, Any], label: str) -> dict[str, Any]:
    """Return a step of a tool."""
    return {
        "tool_id": f"scdrugmap_{verb}",
        "tool_version": VERSION,
        "label": label,
        "doc": DOCS[verb],
        "in": ins,
        "state": state,
    }


def workflow() -> dict[str, Any]:
    """Return the workflow in Format 2."""
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
            {"networks": [{"__index__": 0, "network": network}]},
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
    inputs = {}
    for name, (kind, default, doc) in INPUTS.items():
        inputs[name] = {"type": kind, "doc": doc}
        if default is not None:
            inputs[name] |= {"default": default, "optional": True}
    return {
        "class": "GalaxyWorkflow",
        "label": "scDrugMap benchmark",
        "doc": "Trains a baseline and a model on folds that do not divide patients, predicts the "
        "test cells, scores and compares both.",
        "license": "Apache-2.0",
        "creator": [{"class": "Organization", "name": "The scDrugMap developers"}],
        "inputs": inputs,
        "outputs": {
            "splits": {"outputSource": "split/splits"},
            "metrics": {"outputSource": "evaluate/metrics"},
            "comparisons": {"outputSource": "evaluate/comparisons"},
        },
        "steps": steps,
    }


def main() -> None:
    """Write the workflow."""
    made = python_to_workflow(workflow(), NoServer(), None)
    made["release"] = "0.1.0"
    made.pop("uuid", None)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(made, indent=4, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()

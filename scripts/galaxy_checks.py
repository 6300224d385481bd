"""What a running Galaxy server has to do beside the tests of single tools.

The workflows give what the command line gives, byte for byte; a wrong column comes back red, with the
columns that there are; a server without weights says so, and what to do.
"""

from __future__ import annotations

import html
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "galaxy_tools"
DATA = TOOLS / "test-data"
PRODUCT = ROOT / ".venv" / "bin"
CHECKPOINT = ROOT / "plugins" / "scgpt" / "tests" / "golden"

LONGEST_S = 900
"""Of one test of a tool."""
ENDED = ("ok", "error", "discarded", "failed_metadata", "paused")
SMALL = {"folds": 2, "seeds": "0", "controls": "constant", "draws": 50}
"""Inputs of the benchmark workflow that keep it short."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    key: str
    """Of a tester who is an administrator. galaxy-tool-test would make itself a key, and so make the
    key of every other test that runs invalid."""
    folder: Path
    """Of its configuration."""


@dataclass(frozen=True)
class Check:
    """One thing that a server has to do."""

    name: str
    quick: bool
    run: Callable[[Server, Path], str]
    """Returns what is wrong, or nothing; may write into the folder."""
    alone: bool = False
    """It changes the server under what runs beside it."""


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def scdrugmap(folder: Path, *arguments: object) -> None:
    """Run the command line in a folder, with the threads that jobs of the server have."""
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "SCDRUGMAP_CACHE": str(folder / "cache"),
        "SCDRUGMAP_WEIGHTS": str(CHECKPOINT),
    }
    command = [str(PRODUCT / "scdrugmap"), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


def make_test_data(folder: Path) -> Path:
    """Copy the test data, and make anew what tests compare byte for byte.

    Last digits differ between machines; on one machine Galaxy has to give what the command line gives.
    """
    made = folder / "test-data"
    shutil.copytree(DATA, made)
    for name in ("splits.tsv", "predictions.tsv", "predictions-scgpt.tsv"):
        (made / name).unlink()
    by = ("--label", "response", "--group", "patient", "--folds", 2)
    scdrugmap(made, "split", "cohort.h5ad", *by, "-o", "splits.tsv")
    of = ("--predictor", "predictor.zip", "--splits", "splits.tsv")
    scdrugmap(made, "predict", "cohort.h5ad", *of, "-o", "predictions.tsv")
    of = ("--predictor", "predictor-scgpt.zip", "--weights", CHECKPOINT / "checkpoint")
    to = ("--min-genes", 5, "--sample", "sample", "-o", "predictions-scgpt.tsv")
    scdrugmap(made, "predict", "cohort.h5ad", *of, *to)
    shutil.rmtree(made / "cache", ignore_errors=True)
    return made


def client(server: Server) -> Any:
    """Return what speaks to a server."""
    from bioblend.galaxy import GalaxyInstance

    return GalaxyInstance(server.url, server.key)


def with_cells(galaxy: Any, name: str) -> tuple[str, dict[str, str]]:
    """Make a history that holds the cohort; return it and the cohort."""
    history = galaxy.histories.create_history(name)["id"]
    sent = galaxy.tools.upload_file(str(DATA / "cohort.h5ad"), history, file_type="h5ad")
    cells = sent["outputs"][0]["id"]
    galaxy.datasets.wait_for_dataset(cells, maxwait=LONGEST_S, interval=2)
    return history, {"src": "hda", "id": cells}


def run_workflow(server: Server, name: str, **given: object) -> tuple[Any, list[dict[str, Any]]]:
    """Run a workflow on the cohort; return the client and all datasets, good or bad."""
    galaxy = client(server)
    history, cells = with_cells(galaxy, name)
    file = TOOLS / "workflows" / f"{name}.ga"
    workflow = galaxy.workflows.import_workflow_from_local_path(str(file))["id"]
    invocation = galaxy.workflows.invoke_workflow(
        workflow, {"cells": cells, **given}, history_id=history, inputs_by="name"
    )["id"]
    until = time.monotonic() + 2 * LONGEST_S
    while time.monotonic() < until:
        state = galaxy.invocations.show_invocation(invocation)["state"]
        if state not in ("new", "ready", "requires_materialization"):
            break
        time.sleep(3)
    while True:
        made = [
            item
            for item in galaxy.histories.show_history(history, contents=True, details="all")
            if item["history_content_type"] == "dataset"
        ]
        if all(item["state"] in ENDED for item in made) or time.monotonic() > until:
            return galaxy, made
        time.sleep(3)


def content(galaxy: Any, dataset: dict[str, Any]) -> bytes:
    """Return the bytes of a dataset."""
    return bytes(galaxy.datasets.download_dataset(dataset["id"], use_default_filename=False))


def not_ok(made: list[dict[str, Any]]) -> str:
    """Return what failed."""
    wrong = [f"{item['name']}: {item['misc_info']}" for item in made if item["state"] != "ok"]
    return f"failed at {wrong}" if wrong else ""


def benchmark_workflow(server: Server, folder: Path) -> str:
    """From cells to the report; the tables in the run are those of the command line."""
    galaxy, made = run_workflow(server, "benchmark", **SMALL)
    if wrong := not_ok(made):
        return wrong
    kinds = {item["extension"] for item in made}
    if not {"html", "svg", "pdf", "tabular", "zip"} <= kinds:
        return f"made {sorted(kinds)} only"
    with_cohort = ("--data", DATA / "cohort.h5ad", "--label", "response", "--group", "patient")
    what = ("--models", "hvg-logreg,randproj", "--controls", SMALL["controls"])
    how = ("--folds", SMALL["folds"], "--seeds", SMALL["seeds"], "--draws", SMALL["draws"])
    scdrugmap(folder, "benchmark", *with_cohort, *what, *how, "-o", "run")
    tables = sorted((folder / "run").glob("*.tsv*"))
    archives = [content(galaxy, item) for item in made if item["extension"] == "zip"]
    for archive in archives:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            if "run/run.json" in members.namelist():
                other = [
                    table.name
                    for table in tables
                    if members.read(f"run/{table.name}") != table.read_bytes()
                ]
                return f"not as the command line writes them: {other}" if other else ""
    return "no archive of the run"


def steps_workflow(server: Server, folder: Path) -> str:
    """Step by step; every table is that of the command line."""
    galaxy, made = run_workflow(server, "steps")
    if wrong := not_ok(made):
        return wrong
    cells = DATA / "cohort.h5ad"
    by = ("--label", "response", "--group", "patient", "--folds", 3)
    scdrugmap(folder, "split", cells, *by, "-o", "splits.tsv")
    scdrugmap(folder, "embed", cells, "--model", "randproj", "-o", "embedded.h5ad")
    answers = []
    for fold in range(3):
        for learner in (
            ("--estimator", "hvg-logreg"),
            ("--model", "randproj", "--embeddings", "embedded.h5ad"),
        ):
            name = f"{learner[1]}-{fold}"
            of = ("--splits", "splits.tsv", "--fold", fold, *learner)
            scdrugmap(folder, "train", cells, *of, "-o", f"{name}.zip")
            to = ("--splits", "splits.tsv", "-o", f"{name}.tsv")
            scdrugmap(folder, "predict", cells, "--predictor", f"{name}.zip", *to)
            answers.append(f"{name}.tsv")
    to = ("--comparisons", "comparisons.tsv", "-o", "metrics.tsv")
    scdrugmap(folder, "evaluate", *answers, "--splits", "splits.tsv", *to)
    found = {content(galaxy, item) for item in made if item["extension"] == "tabular"}
    other = [path.name for path in sorted(folder.glob("*.tsv")) if path.read_bytes() not in found]
    return f"not as the command line writes them: {other}" if other else ""


def wrong_column(server: Server, folder: Path) -> str:
    """A column that does not exist, from a workflow: red, with the columns that there are."""
    said, _ = red(server, label="reponse")
    missing = [word for word in ("'reponse'", "patient", "response", "drug") if word not in said]
    return f"the red dataset does not say {missing} but {said!r}" if missing else ""


def wrong_model(server: Server, folder: Path) -> str:
    """A model that does not exist: red, with the line and the exit code of the command line."""
    said, code = red(server, models="no-such-model")
    missing = [word for word in ("Error: ", "no-such-model") if word not in said]
    if missing:
        return f"the red dataset does not say {missing} but {said!r}"
    return "" if code == 4 else f"exit code {code}"


def red(server: Server, **given: object) -> tuple[str, int | None]:
    """Run the benchmark workflow in vain; return what its first red dataset says, and the exit code."""
    galaxy, made = run_workflow(server, "benchmark", **{**SMALL, **given})
    failed = [item for item in made if item["state"] == "error"]
    if not failed:
        return f"nothing is red: {[item['state'] for item in made]}", None
    job = galaxy.jobs.show_job(galaxy.datasets.show_dataset(failed[0]["id"])["creating_job"])
    return str(failed[0]["misc_info"]), job["exit_code"]


def no_weights(server: Server, folder: Path) -> str:
    """An empty table of weights: the form offers none and says what to do."""
    galaxy = client(server)
    table = server.folder / "scdrugmap_weights.loc"
    kept = table.read_bytes()
    table.write_bytes(b"")
    try:
        galaxy.tool_data.reload_data_table("scdrugmap_weights")
        history = galaxy.histories.create_history("no weights")["id"]
        form = galaxy.tools.build("scdrugmap_embed", history_id=history)
    finally:
        table.write_bytes(kept)
        galaxy.tool_data.reload_data_table("scdrugmap_weights")
    if "networks_0|network|weights" not in form["errors"]:
        return f"the form can be sent: {form['errors']}"
    weights = named(form["inputs"], "weights")
    advice = "ask an administrator to run 'Register scDrugMap weights'"
    said = html.unescape(str(weights["help"]))
    if weights["options"] or advice not in said:
        return f"the form offers {weights['options']} and says {said!r}"
    return ""


def named(inputs: Any, name: str) -> Any:
    """Return the first parameter of a name in a form, however deep."""
    if isinstance(inputs, dict):
        if inputs.get("name") == name:
            return inputs
        inputs = list(inputs.values())
    if isinstance(inputs, list):
        for item in inputs:
            if found := named(item, name):
                return found
    return None


CHECKS = (
    Check("workflow benchmark", True, benchmark_workflow),
    Check("workflow steps", False, steps_workflow),
    Check("wrong column", False, wrong_column),
    Check("wrong model", False, wrong_model),
    Check("no weights", False, no_weights, alone=True),
)

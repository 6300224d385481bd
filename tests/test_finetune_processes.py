"""Fine-tuning in processes of its own: killed and resumed, and several together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdrugmap.testing import synthetic_adata
from scdrugmap.train.predictor import Predictor

SPLIT = ("--label", "response", "--group", "patient", "--folds", 2)
TRAIN = (
    *("--fold", 0, "--model", "scgpt", "--weights", "random", "--set", "variant=tiny"),
    *("--strategy", "lora", "--device", "cpu", "--min-genes", 1, "--batch-size", 16),
)


@pytest.fixture
def folder(cli: Callable[..., Any], tmp_path: Path) -> Path:
    synthetic_adata(128, 200).write_h5ad(tmp_path / "cohort.h5ad")
    done = cli("split", tmp_path / "cohort.h5ad", *SPLIT, "-o", tmp_path / "splits.tsv")
    assert done.code == 0, done.err
    return tmp_path


def arguments(folder: Path, output: str, *options: object) -> list[str]:
    return [
        *("train", str(folder / "cohort.h5ad"), "--splits", str(folder / "splits.tsv")),
        *map(str, (*TRAIN, *options)),
        *("-o", str(folder / output)),
    ]


def kill_when(process: subprocess.Popen[str], path: Path) -> None:
    """Kill a process as soon as a file is there."""
    end = time.monotonic() + 90
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_predictor(
    cli: Callable[..., Any], folder: Path
) -> None:
    options = ("--max-steps", 60, "--evaluate-every", 2, "--patience", 50)
    assert cli(*arguments(folder, "whole.zip", *options)).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "scdrugmap", *arguments(folder, "killed.zip", *options)],
        stderr=subprocess.PIPE,
        text=True,
    )
    unfinished = folder / "killed.zip.unfinished"
    kill_when(process, unfinished)
    assert process.stderr is not None
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert unfinished.exists()
    assert not (folder / "killed.zip").exists()
    assert "--resume goes on" in cli(*arguments(folder, "killed.zip", *options)).err
    done = cli(*arguments(folder, "killed.zip", *options, "--resume"))
    assert done.code == 0, done.err
    assert "going on after step" in done.err
    assert not unfinished.exists()
    whole, killed = (Predictor.load(folder / name) for name in ("whole.zip", "killed.zip"))
    assert killed.files == whole.files
    assert whole.info.tuning is not None
    assert killed.info.tuning is not None
    assert killed.info.tuning.history == whole.info.tuning.history
    assert killed.info.self_test == whole.info.self_test


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(cli: Callable[..., Any], folder: Path) -> None:
    options = ("--max-steps", 8, "--evaluate-every", 1, "--token-budget", 500)
    assert cli(*arguments(folder, "one.zip", *options)).code == 0
    launch = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    usual = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", *launch, *usual),
            *("-m", "scdrugmap", *arguments(folder, "two.zip", *options)),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 1 of 8") == 1  # one of them speaks
    one, two = (Predictor.load(folder / name).info.tuning for name in ("one.zip", "two.zip"))
    assert one is not None
    assert two is not None
    assert (one.n_processes, two.n_processes) == (1, 2)
    for name in ("loss", "validation_loss"):
        first, second = ([getattr(row, name) for row in info.history] for info in (one, two))
        np.testing.assert_allclose(second, first, rtol=1e-4)

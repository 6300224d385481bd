"""``scdrugmap evaluate`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.evaluation.design import Design
from scdrugmap.evaluation.evaluate import evaluate
from scdrugmap.evaluation.splits import make_split
from scdrugmap.evaluation.tables import read_metrics, write_predictions, write_splits


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, pd.DataFrame, pd.DataFrame]:
    """Write a split of 10 donors and predictions of all cells, training cells too."""
    number = np.repeat(np.arange(10), 12)
    cells = pd.DataFrame(
        {
            "dataset": "d",
            "cell": [f"c{i}" for i in range(120)],
            "sample": [f"s{i}" for i in number],
            "donor": [f"p{i}" for i in number],
            "study": "d",
            "label": np.where(number % 2, "sensitive", "resistant"),
            "fingerprint": [str(i) for i in range(120)],
        }
    ).astype(object)
    splits = make_split(Design(cells), folds=2).table
    predictions = splits[["dataset", "cell", "sample", "fold", "role"]].assign(
        model="m",
        strategy="estimator",
        seed=0,
        p_sensitive=np.random.default_rng(0).random(len(splits)),
        threshold=0.5,
        state="answered",
        reason="",
    )
    write_splits(splits, tmp_path / "splits.tsv")
    write_predictions(predictions, tmp_path / "predictions.tsv")
    return tmp_path / "predictions.tsv", tmp_path / "splits.tsv", predictions, splits


def test_command_writes_what_the_library_gives(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, table, manifest = files
    output = tmp_path / "metrics.tsv"
    result = cli("evaluate", predictions, "--splits", splits, "--draws", 40, "-o", output)
    assert result.code == 0, result.err
    expected = evaluate(table, manifest, draws=40)
    expected.attrs = {}
    pd.testing.assert_frame_equal(read_metrics(output), expected)
    assert result.out == ""


def test_figures_and_what_was_left_out_are_shown(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    result = cli(
        "evaluate", predictions, "--splits", splits, "--draws", 40, "-o", tmp_path / "m.tsv"
    )
    assert "Note: 120 predictions are of no test cell" in result.err
    assert "m (estimator, seed 0)" in result.err
    assert "0.333" in result.err  # the constant


def test_quiet_says_nothing(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    result = cli("evaluate", predictions, "--splits", splits, "--quiet", "-o", tmp_path / "m.tsv")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_same_input_gives_the_same_bytes(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    for name in ("a", "b"):
        cli("evaluate", predictions, "--splits", splits, "--draws", 40, "-o", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_training_cells_need_a_word(cli: Any, files: Any, tmp_path: Path) -> None:
    _, splits, table, _ = files
    only = tmp_path / "train.tsv"
    write_predictions(table[table["role"] == "train"], only)
    output = tmp_path / "m.tsv"
    refused = cli("evaluate", only, "--splits", splits, "-o", output)
    assert refused.code == 3
    assert "none of the 120 predictions is of a test cell" in refused.err
    assert not output.exists()
    done = cli("evaluate", only, "--splits", splits, "--in-sample", "--draws", 0, "-o", output)
    assert done.code == 0, done.err
    assert read_metrics(output)["note"].str.contains("in-sample").all()


def test_one_file_given_twice_is_refused(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    result = cli("evaluate", predictions, predictions, "--splits", splits, "-o", tmp_path / "m")
    assert result.code == 3
    assert "occurs twice" in result.err
    assert "do not give the same file twice" in result.err


def test_edited_split_is_refused(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    splits.write_text(splits.read_text().replace("\ttest\t", "\ttrain\t", 1))
    result = cli("evaluate", predictions, "--splits", splits, "-o", tmp_path / "m.tsv")
    assert result.code == 3
    assert "was edited or cut" in result.err


def test_missing_file_is_a_usage_error(cli: Any, files: Any, tmp_path: Path) -> None:
    _, splits, _, _ = files
    result = cli("evaluate", tmp_path / "none.tsv", "--splits", splits, "-o", tmp_path / "m.tsv")
    assert result.code == 2
    assert "does not exist" in result.err


def test_existing_output_is_kept(cli: Any, files: Any, tmp_path: Path) -> None:
    predictions, splits, _, _ = files
    result = cli("evaluate", predictions, "--splits", splits, "-o", predictions)
    assert result.code == 2
    assert "both input and output" in result.err


def test_help_has_an_example(cli: Any) -> None:
    assert "Example: scdrugmap evaluate" in cli("evaluate", "--help").out

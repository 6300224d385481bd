"""Several runs side by side: what is ranked, what is refused, and who is called what."""

from __future__ import annotations

from pathlib import Path

import pytest

from scdrugmap.errors import DataError, UsageError
from scdrugmap.report.build import build_report
from scdrugmap.report.combine import combine_runs
from scdrugmap.run.record import read_run, write_run
from tests.test_report import PAPER, SIGNAL, SOUND, make_run

BETTER = {**SIGNAL, "pooled-group": {**SIGNAL["pooled-group"], "hvg-logreg": 1.5}}


def change_splits(folder: Path, protocol: str) -> None:
    """Divide the cells of a run otherwise, as another seed of the split would."""
    from scdrugmap.evaluation.tables import read_splits, split_id, write_splits

    path = folder / f"splits-{protocol}.tsv.gz"
    table = read_splits(path)
    table["fold"] = 2 - table["fold"]
    table["split_id"] = split_id(table, protocol)
    write_splits(table, path)
    record_splits(folder)


def record_splits(folder: Path) -> Path:
    """Write the hashes of the manifests of a run into its record."""
    from scdrugmap.evaluation.tables import read_splits

    run = read_run(folder)
    protocols = tuple(
        item.model_copy(
            update={
                "split_id": read_splits(folder / f"splits-{item.name}.tsv.gz")["split_id"].iloc[0]
            }
        )
        for item in run.protocols
    )
    write_run(folder, run.model_copy(update={"protocols": protocols, "name": folder.name}))
    return folder


def test_models_of_two_runs_on_one_manifest_are_ranked_together(tmp_path: Path) -> None:
    one = record_splits(make_run(tmp_path / "one", protocols=(SOUND,)))
    two = record_splits(make_run(tmp_path / "two", protocols=(SOUND,), signal=BETTER))
    tables = combine_runs([one, two])
    names = [model.name for model in tables.run.models]
    assert sorted(names) == sorted(
        ["constant", "technical", "scgpt", "hvg-logreg @one", "hvg-logreg @two"]
    )
    assert set(tables.metrics["model"]) == set(names)
    assert tables.run.name == "one · two"
    assert tables.warnings == ()
    build_report([one, two], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "hvg-logreg @two, the best of 2 models" in page


def test_a_protocol_whose_manifests_differ_is_not_ranked_and_it_is_said_which(
    tmp_path: Path,
) -> None:
    one = record_splits(make_run(tmp_path / "one"))
    two = record_splits(make_run(tmp_path / "two"))
    change_splits(two, PAPER.name)
    tables = combine_runs([one, two])
    status = {item.name: item.status for item in tables.run.protocols}
    assert status == {"pooled-group": "evaluated", "paper-pooled": "refused"}
    assert set(tables.metrics["protocol"]) == {"pooled-group"}
    assert "the manifests differ: one has paper-pooled-" in tables.warnings[0]
    assert "(720 cells, 12 groups, 3 folds)" in tables.warnings[0]
    build_report([one, two], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "paper-pooled is not ranked: the manifests differ" in page


def test_runs_without_a_common_manifest_are_refused(tmp_path: Path) -> None:
    one = record_splits(make_run(tmp_path / "one", protocols=(SOUND,)))
    two = record_splits(make_run(tmp_path / "two", protocols=(PAPER,)))
    with pytest.raises(DataError, match="no manifest is the same in all runs") as error:
        build_report([one, two], tmp_path / "r.html")
    assert "pooled-group: two did not run it" in error.value.message
    assert "split_seed" in error.value.hint
    assert not (tmp_path / "r.html").exists()


def test_a_run_given_twice_is_refused(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", protocols=(SOUND,))
    with pytest.raises(UsageError, match="one is given twice"):
        combine_runs([one, tmp_path / "one" / ".." / "one"])


def test_runs_of_one_name_are_numbered_and_other_versions_said(tmp_path: Path) -> None:
    for place in ("a", "b"):
        record_splits(make_run(tmp_path / place / "run", protocols=(SOUND,)))
    two = tmp_path / "b" / "run"
    run = read_run(two)
    write_run(two, run.model_copy(update={"provenance": {"scdrugmap": "0.0.9"}}))
    tables = combine_runs([tmp_path / "a" / "run", two])
    assert tables.run.name == "run (1) · run (2)"
    assert tables.warnings == (
        "The runs were made with different scdrugmap: run (1) 0.1.0, run (2) 0.0.9.",
    )
    assert tables.run.config["folds"] == 3
    assert set(tables.run.config["runs"]) == {"run (1)", "run (2)"}

"""The job table of a benchmark, drawn cells, refusals, and measured costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdrugmap.config import BenchmarkConfig, make_config
from scdrugmap.errors import DataError
from scdrugmap.evaluation.design import Design
from scdrugmap.run.cohort import draw_cells, read_cohort
from scdrugmap.run.plan import make_plan, plan_with_costs
from scdrugmap.run.plan_text import describe_plan, plan_record
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    path = tmp_path / "cohort.h5ad"
    synthetic_adata(160, 600, n_patients=8).write_h5ad(path)
    return path


def config_of(path: Path, **fields: Any) -> BenchmarkConfig:
    values: dict[str, Any] = {
        "data": str(path),
        "label": "response",
        "group": "patient",
        "models": ("constant", "randproj"),
        "controls": False,
        "seeds": (0,),
        "folds": 3,
    }
    return make_config({**values, **fields})


def test_jobs_are_protocol_by_model_by_fold_by_seed(cohort: Path) -> None:
    plan = make_plan(config_of(cohort, protocols=("pooled-group", "paper-pooled"), seeds=(0, 1)))
    assert len(plan.jobs) == 2 * 2 * 3 * 2
    assert len(set(plan.jobs)) == len(plan.jobs)
    heads = {(job.protocol, job.head) for job in plan.jobs if job.model == "randproj"}
    assert heads == {("pooled-group", "logistic"), ("paper-pooled", "mlp")}
    assert {(job.strategy, job.head) for job in plan.jobs if job.model == "constant"} == {
        ("estimator", None)
    }


def test_fewer_groups_than_folds_give_fewer_jobs(cohort: Path) -> None:
    plan = make_plan(config_of(cohort, folds=7, models=("constant",)))
    assert len(plan.jobs) == 4
    assert any("4 folds instead of 7" in text for text in plan.splits["pooled-group"].notices)


def test_a_refused_protocol_leaves_the_others(tmp_path: Path) -> None:
    adata = synthetic_adata(160, 600, n_patients=2)
    adata.write_h5ad(tmp_path / "two.h5ad")
    config = config_of(tmp_path / "two.h5ad", protocols=("pooled-group", "paper-pooled"))
    plan = make_plan(config)
    assert list(plan.splits) == ["paper-pooled"]
    assert [item.protocol for item in plan.refusals] == ["pooled-group"]
    assert any("pooled-group: refused" in line for line in describe_plan(plan))
    with pytest.raises(DataError) as caught:
        make_plan(config_of(tmp_path / "two.h5ad"))
    assert caught.value.hint


def test_drawn_cells_keep_the_share_of_every_group_and_label() -> None:
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "cell": [f"c{i}" for i in range(1000)],
            "donor": np.repeat(["A", "B", "C"], [600, 300, 100]),
            "label": np.where(np.arange(1000) % 10 < 3, "sensitive", "resistant"),
        }
    )
    drawn, notices = draw_cells(Design(frame), 100, 0)
    counts = drawn.frame.groupby(["donor", "label"]).size()
    assert len(drawn.frame) == 100
    assert counts["A", "sensitive"] == 18
    assert counts["A", "resistant"] == 42
    assert counts["C"].min() >= 1
    assert "100 of 1,000" in notices[0]
    again, _ = draw_cells(Design(frame), 100, 0)
    assert again.frame.equals(drawn.frame)
    other, _ = draw_cells(Design(frame), 100, 1)
    assert not other.frame.equals(drawn.frame)


def test_donors_whose_names_run_together_with_those_of_datasets_are_two_strata() -> None:
    frame = pd.DataFrame(
        {
            "dataset": ["a"] * 1000 + ["a1"],
            "cell": [f"c{i}" for i in range(1001)],
            "donor": ["1x"] * 1000 + ["x"],
            "label": "sensitive",
        }
    )
    drawn, _ = draw_cells(Design(frame), 10, 0)
    assert drawn.frame["dataset"].value_counts().to_dict() == {"a": 9, "a1": 1}


def test_a_rare_stratum_keeps_a_cell() -> None:
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "cell": [f"c{i}" for i in range(1001)],
            "donor": ["A"] * 1000 + ["B"],
            "label": ["sensitive"] * 1000 + ["resistant"],
        }
    )
    drawn, _ = draw_cells(Design(frame), 10, 0)
    assert sorted(drawn.frame["donor"].unique()) == ["A", "B"]
    everything, notices = draw_cells(Design(frame), 5000, 0)
    assert len(everything.frame) == 1001
    assert notices == ()


def test_content_changes_with_a_value_and_not_with_the_place_of_the_file(
    cohort: Path, tmp_path: Path
) -> None:
    before = read_cohort(config_of(cohort)).content
    (tmp_path / "elsewhere").mkdir()
    moved = cohort.rename(tmp_path / "elsewhere" / "cohort.h5ad")
    assert read_cohort(config_of(moved)).content == before
    adata = synthetic_adata(160, 600, n_patients=8)
    adata.X.data[0] += 1
    adata.write_h5ad(cohort)
    assert read_cohort(config_of(cohort)).content != before


def test_names_and_studies_of_files_reach_the_design(cohort: Path) -> None:
    config = config_of(cohort, data=[{"path": str(cohort), "name": "first", "study": "S"}])
    frame = read_cohort(config).design.frame
    assert set(frame["dataset"]) == {"first"}
    assert set(frame["study"]) == {"S"}


def test_costs_are_measured_or_unknown(cohort: Path) -> None:
    models = ("constant", "randproj", "scgpt", "gpt4o_mini")
    plan = plan_with_costs(config_of(cohort, models=models))
    costs = {cost.model: cost for cost in plan.costs}
    assert set(costs) == {"randproj", "scgpt", "gpt4o_mini"}
    asked = costs["gpt4o_mini"]
    assert (asked.work, asked.n_cells, asked.hours) == ("ask", 160, None)
    assert costs["randproj"].hours is not None
    assert costs["randproj"].hours > 0
    assert costs["scgpt"].hours is None  # there are no weights here
    text = "\n".join(describe_plan(plan))
    assert "unknown" in text
    assert "measured on" in text
    assert "weights" in costs["scgpt"].note


def test_plan_record_is_json(cohort: Path) -> None:
    import json

    record = json.loads(json.dumps(plan_record(make_plan(config_of(cohort)))))
    assert record["n_cells"] == 160
    assert len(record["jobs"]) == 6
    assert record["protocols"][0]["split_id"].startswith("pooled-group-")


def test_zero_shot_protocols_say_who_has_no_answer_to_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthetic_adata(80, 600, n_patients=4, seed=ord(name)).write_h5ad(tmp_path / f"{name}.h5ad")
    plan = make_plan(
        config_of(
            tmp_path,
            data=[str(tmp_path / "a.h5ad"), str(tmp_path / "b.h5ad")],
            models=("constant", "scgpt", "gpt4o_mini"),
            strategies=("frozen", "lora", "prompt"),
            weights={"scgpt": "random"},
            protocols=("zero-shot", "zero-shot-unlabelled"),
        )
    )
    there = {(job.protocol, job.model, job.strategy) for job in plan.jobs}
    assert there == {
        ("zero-shot", "constant", "estimator"),
        ("zero-shot", "scgpt", "frozen"),
        ("zero-shot", "gpt4o_mini", "prompt"),
        ("zero-shot-unlabelled", "gpt4o_mini", "prompt"),
    }
    text = "\n".join(describe_plan(plan))
    assert "zero-shot: the encoder stays as it is: without scgpt lora" in text
    out = "zero-shot-unlabelled: nothing is trained: without constant, scgpt frozen, scgpt lora"
    assert out in text

"""``scdrugmap benchmark`` and ``plan`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdrugmap.cli.benchmark import configure
from scdrugmap.errors import UsageError
from scdrugmap.testing import synthetic_adata


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    path = tmp_path / "cohort.h5ad"
    synthetic_adata(160, 600, n_patients=8).write_h5ad(path)
    return path


def flags(path: Path, *more: str) -> list[str]:
    return [
        *("--data", str(path), "--label", "response", "--group", "patient", "--folds", "2"),
        *("--models", "constant,randproj", "--draws", "10", "--seeds", "0"),
        *("--controls", "none"),
        *more,
    ]


def test_flags_run_a_benchmark_and_print_the_report(
    cli: Callable[..., Any], cohort: Path, tmp_path: Path
) -> None:
    result = cli("benchmark", *flags(cohort), "-o", tmp_path / "run")
    assert result.code == 0, result.err
    assert result.out.strip() == str(tmp_path / "run" / "report.html")
    assert (tmp_path / "run" / "metrics.tsv").is_file()


def test_a_file_runs_a_benchmark_and_flags_win(
    cli: Callable[..., Any], cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "bench.yaml").write_text(
        "data: cohort.h5ad\nlabel: response\ngroup: patient\nmodels: [constant, randproj]\n"
        "folds: 3\ndraws: 10\nseeds: 0\ncontrols: false\n"
    )
    result = cli(
        *("benchmark", tmp_path / "bench.yaml", "--folds", 2, "--models", "constant"),
        *("--quiet", "-o", tmp_path / "run"),
    )
    assert result.code == 0, result.err
    assert result.err == ""
    written = (tmp_path / "run" / "config.yaml").read_text()
    assert "folds: 2" in written
    assert "randproj" not in written


def test_dry_run_shows_the_jobs_and_writes_nothing(
    cli: Callable[..., Any], cohort: Path, tmp_path: Path
) -> None:
    result = cli("benchmark", *flags(cohort, "--seeds", "0,1"), "--dry-run")
    assert result.code == 0, result.err
    assert "8 jobs" in result.out
    assert "gigabytes" in result.out
    assert "measured on" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.h5ad"]


def test_plan_prints_json(cli: Callable[..., Any], cohort: Path) -> None:
    result = cli("plan", *flags(cohort, "--protocol", "paper-pooled"), "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert {job["head"] for job in plan["jobs"] if job["model"] == "randproj"} == {"mlp"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--label", "response", "-o", "run"], "--data"),
        (["none.yaml", "-o", "run"], "none.yaml does not exist"),
    ],
)
def test_what_is_missing_is_named(cli: Callable[..., Any], arguments: list[str], part: str) -> None:
    result = cli("benchmark", *arguments)
    assert result.code == 2
    assert part in result.err
    assert "Traceback" not in result.err


def test_the_output_must_be_named(cli: Callable[..., Any], cohort: Path) -> None:
    result = cli("benchmark", *flags(cohort))
    assert result.code == 2
    assert "-o" in result.err


def test_a_column_that_is_not_there_is_refused_with_the_nearest(
    cli: Callable[..., Any], cohort: Path, tmp_path: Path
) -> None:
    result = cli(
        *("benchmark", "--data", cohort, "--label", "response", "--group", "patnt"),
        *("-o", tmp_path / "run"),
    )
    assert result.code == 2
    assert "patient" in result.err
    assert not (tmp_path / "run" / "metrics.tsv").exists()


def test_a_confounded_design_exits_with_3(cli: Callable[..., Any], tmp_path: Path) -> None:
    synthetic_adata(120, 600, n_patients=2).write_h5ad(tmp_path / "two.h5ad")
    result = cli("benchmark", *flags(tmp_path / "two.h5ad"), "-o", tmp_path / "run")
    assert result.code == 3
    assert result.err.strip().splitlines()[-2].startswith("Error: ")


def given(**changes: Any) -> dict[str, Any]:
    """Return what click hands over when nothing but data and label is given."""
    from scdrugmap.cli.benchmark import command

    values: dict[str, Any] = {}
    for parameter in command.params:
        values[str(parameter.name)] = () if getattr(parameter, "multiple", False) else None
    for name in ("config", "output", "executor", "dry_run", "overwrite", "quiet"):
        values.pop(name)
    values.update({"data": (Path("a.h5ad"),), "label": "response"})
    return {**values, **changes}


def test_options_without_a_model_are_for_the_embedding_models() -> None:
    config = configure(
        None,
        given(
            models="constant,randproj,pca-logreg",
            settings=("dim=32", "pca-logreg.components=10"),
            weights=("random",),
        ),
    )
    assert config.settings == {"randproj": {"dim": "32"}, "pca-logreg": {"components": "10"}}
    assert config.weights == {"randproj": "random"}


def test_head_holds_for_both_families_and_seeds_are_numbers() -> None:
    config = configure(None, given(head="logistic", seeds="0,3"))
    assert config.heads == {"sound": "logistic", "paper": "logistic"}
    assert config.seeds == (0, 3)
    with pytest.raises(UsageError, match="no seed"):
        configure(None, given(seeds="0,x"))


@pytest.mark.parametrize("verb", ["benchmark", "plan", "report"])
def test_help_ends_with_an_example(cli: Callable[..., Any], verb: str) -> None:
    result = cli(verb, "--help")
    assert result.code == 0
    assert f"scdrugmap {verb} " in result.out.partition("Example:")[2]


def test_strategies_controls_and_tuning_come_from_flags() -> None:
    config = configure(
        None,
        given(
            models="scgpt",
            strategies="frozen,lora",
            tuning=("epochs=2", "learning_rate=0.01"),
            controls="technical,permuted",
            permutations=3,
            protocols=("paper",),
        ),
    )
    assert config.strategies == ("frozen", "lora")
    assert (config.tuning.epochs, config.tuning.learning_rate) == (2, 0.01)
    assert config.controls == ("technical", "permuted")
    assert config.permutations == 3
    assert config.protocols == ("paper-pooled",)
    assert configure(None, given(controls="none")).controls == ()
    assert configure(None, given(draws=0)).draws == 0
    assert len(configure(None, given(controls="all")).controls) == 5
    with pytest.raises(UsageError, match="--tune 'epochs' is not"):
        configure(None, given(tuning=("epochs",)))
    with pytest.raises(UsageError, match=r"tuning\.epoks"):
        configure(None, given(tuning=("epoks=3",)))

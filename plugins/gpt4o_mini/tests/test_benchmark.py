"""A benchmark with a model behind a real server: one budget, nothing asked twice, no key in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fault_proxy import FaultProxy
from gpt_places import KEY

from scdrugmap.config import make_config
from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.run.asking import LEDGER_FILE
from scdrugmap.run.cwl import Engine, run_with_engine
from scdrugmap.run.execute import run_benchmark
from scdrugmap.testing import synthetic_adata

N_CELLS, N_PROBES = 32, 2


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Write two files of four patients each, so that a job asks about both."""
    for number in range(2):
        adata = synthetic_adata(N_CELLS // 2, 120, n_patients=4, seed=number)
        adata.obs["patient"] = [f"{number}{name}" for name in adata.obs["patient"]]
        adata.write_h5ad(tmp_path / f"cohort{number}.h5ad")
    return tmp_path


Make = Callable[..., Any]


@pytest.fixture
def config_of(cohort: Path, proxy: FaultProxy) -> Make:
    def make(**fields: Any) -> Any:
        values = {
            "data": [str(cohort / f"cohort{number}.h5ad") for number in range(2)],
            "label": "response",
            "group": "patient",
            "models": ("constant", "gpt4o_mini"),
            "settings": {"gpt4o_mini": {"base_url": proxy.base_url, "top_k": 10}},
            "controls": False,
            "folds": 2,
            "seeds": (0,),
            "draws": 0,
            "api_key_env": "TEST_KEY",
            "price": "1000/1000",
        }
        return make_config({**values, **fields})

    return make


def spent(run: Path) -> float:
    return float(json.loads((run / "jobs" / LEDGER_FILE).read_text())["spent_usd"])


def asked(proxy: FaultProxy) -> list[str]:
    return [hash_json(request) for request in proxy.plan.seen]


@pytest.mark.needs_llm_server
@pytest.mark.slow
def test_a_budget_holds_for_all_jobs_and_goes_on_without_asking_twice(
    proxy: FaultProxy, config_of: Make, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cohort / "whole"
    undisturbed = run_benchmark(config_of(max_cost=1000.0), whole, quiet=True)
    costs = spent(whole)
    assert len(asked(proxy)) == len(set(asked(proxy))) == N_CELLS + N_PROBES
    proxy.plan.seen.clear()
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(cohort / "other-cache"))
    run, most = cohort / "run", 0.8 * costs
    with pytest.raises(ResourceError, match=r"budget of .* USD is used up") as stopped:
        run_benchmark(config_of(max_cost=most), run, quiet=True)
    assert "larger --max-cost" in stopped.value.hint
    # One job costs about half of all: a budget of each job would never have been used up.
    assert costs / 2 < most
    before = len(asked(proxy))
    assert N_CELLS // 2 < before < N_CELLS + N_PROBES
    assert 0 < spent(run) <= most
    with pytest.raises(ResourceError, match="is used up"):
        run_benchmark(config_of(max_cost=most), run, quiet=True)
    larger = config_of(max_cost=1000.0)
    resumed = run_benchmark(larger, run, executor="processes:2", quiet=True)
    assert len(asked(proxy)) == len(set(asked(proxy))) == N_CELLS + N_PROBES
    assert spent(run) == pytest.approx(costs, rel=0.05)
    pd.testing.assert_frame_equal(resumed.metrics, undisturbed.metrics)
    assert set(resumed.metrics["model"]) == {"constant", "gpt4o_mini"}
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [event["usd"] for event in events if event["event"] == "spent"] == [spent(run)]
    for path in (path for folder in (run, cohort / "other-cache") for path in folder.rglob("*")):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    assert "TEST_KEY" in (run / "run.json").read_text("utf-8"), "the name of the variable is kept"


@pytest.mark.needs_llm_server
def test_what_may_not_be_asked_is_refused_before_any_work(
    proxy: FaultProxy, config_of: Make, cohort: Path
) -> None:
    elsewhere = {"gpt4o_mini": {"base_url": "https://example.invalid/v1"}}
    for fields, message in (
        ({"settings": elsewhere}, "the network is not allowed"),
        ({"settings": elsewhere, "allow_network": True}, "nothing limits what that costs"),
        ({"api_key_env": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
    ):
        with pytest.raises(UsageError, match=message):
            run_benchmark(config_of(**fields), cohort / "run", overwrite=True, quiet=True)
        assert not list((cohort / "run" / "jobs").glob("*.tsv.gz"))
    assert not proxy.plan.seen


def test_engines_run_no_model_that_may_cost(cohort: Path) -> None:
    config = make_config(
        {
            "data": str(cohort / "cohort0.h5ad"),
            "label": "response",
            "group": "patient",
            "models": ("gpt4o_mini",),
            "allow_network": True,
            "max_cost": 1.0,
        }
    )
    with pytest.raises(UsageError, match="share neither a budget nor a key"):
        run_with_engine(config, cohort / "run", Engine(arguments=(sys.executable,)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"price": "cheap"}, "'cheap' is not READ/WRITTEN"),
        ({"price": "nan/1"}, "a price is 0 or more"),
        ({"api_key_env": "sk-123"}, "api_key_env"),
        ({"max_cost": 0}, "max_cost"),
    ],
)
def test_a_price_and_the_name_of_a_key_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config({"data": "a.h5ad", "label": "response", **fields})

"""``scdrugmap doctor`` shows what this machine can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scdrugmap.run.doctor import _slow

Cli = Callable[..., Any]


def test_facts_are_complete_and_machine_readable(cli: Cli) -> None:
    result = cli("doctor", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["devices"][0]["name"] == "cpu"
    assert found["matmul_flop_per_s"] > 1e8
    assert found["memory_bytes"] > 1e8
    assert found["cache"]["writable"]
    assert "baselines" in [plugin["name"] for plugin in found["plugins"]]
    assert "scgpt" in [row["model"] for row in found["weights"]]
    assert found["hours"] == {}


def test_people_get_lines_with_the_next_command(cli: Cli) -> None:
    lines = cli("doctor").out.splitlines()
    assert lines[0].startswith("scdrugmap ")
    assert any("GFLOP/s" in line for line in lines)
    assert "how long a model takes: scdrugmap doctor --model NAME --weights random" in lines


def test_hours_are_measured_for_models_that_are_named(cli: Cli) -> None:
    found = json.loads(cli("doctor", "--model", "randproj", "--json").out)
    assert 0 < found["hours"]["randproj"] < 1


def test_an_unknown_model_is_refused(cli: Cli) -> None:
    result = cli("doctor", "--model", "randprj")
    assert result.code == 4
    assert "did you mean randproj" in result.err


def test_what_could_be_slow_is_said() -> None:
    cache = {"writable": False, "free_bytes": 0}
    notes = "\n".join(_slow([{"name": "cpu"}], cache, int(1e9), 16, 1))
    for word in ("no GPU", "1 of 16 processors", "1.0 GB is little", "SCDRUGMAP_CACHE"):
        assert word in notes
    cache = {"writable": True, "free_bytes": int(5e9)}
    (note,) = _slow([{"name": "cpu"}, {"name": "cuda:0"}], cache, int(1e11), 4, 4)
    assert "5.0 GB are free" in note

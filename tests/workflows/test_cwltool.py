"""The CWL tools and workflows on cwltool: valid, working, and the same as the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML

from tests.workflows.engines import call, succeed

CWL = Path(__file__).resolve().parent.parent.parent / "cwl"
pytestmark = pytest.mark.timeout(1200)
DOCUMENTS = [path for name in ("tools", "workflows") for path in sorted((CWL / name).glob("*.cwl"))]
NVIDIA_SMI = """#!/bin/sh
echo '<nvidia_smi_log><cuda_version>12.4</cuda_version><attached_gpus>1</attached_gpus></nvidia_smi_log>'
"""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_is_valid_without_warnings(path: Path) -> None:
    done = call("cwltool", "--disable-color", "--validate", "--strict", path)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_the_dockerfile_has_no_finding() -> None:
    done = call("hadolint", CWL.parent / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_cwltest_passes(made: Path, tmp_path: Path) -> None:
    listed = YAML(typ="safe").load((CWL / "tests" / "tests.yml").read_text("utf-8"))
    result = tmp_path / "cwl.xml"
    done = subprocess.run(
        [
            *("cwltest", "--test", CWL / "tests" / "tests.yml", "--tool", "cwltool"),
            *("--junit-xml", result, "--", "--no-container"),
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    cases = ElementTree.parse(result).getroot().findall(".//testcase")
    assert len(cases) == len(listed)
    assert not [case.get("name") for case in cases if len(case.findall("skipped"))]


def test_predictions_are_those_of_the_command_line(made: Path, tmp_path: Path) -> None:
    job = {
        "input": {"class": "File", "path": str(made / "cohort.h5ad")},
        "predictor": {"class": "File", "path": str(made / "predictor.zip")},
        "splits": {"class": "File", "path": str(made / "splits.tsv")},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    succeed(
        *("cwltool", "--no-container", "--outdir", tmp_path / "out"),
        *(CWL / "tools" / "predict.cwl", tmp_path / "job.json"),
    )
    predicted = (tmp_path / "out" / "predictions.tsv").read_bytes()
    assert predicted == (made / "predictions.tsv").read_bytes()


def test_the_error_of_a_tool_is_the_line_of_the_command_line(made: Path, tmp_path: Path) -> None:
    done = call(
        *("cwltool", "--no-container", "--outdir", tmp_path),
        *(CWL / "tools" / "split.cwl", CWL / "tests" / "jobs" / "split-no-column.yml"),
    )
    assert done.returncode == 1
    assert "no_such_column" in done.stderr
    assert "response" in done.stderr, "the columns that exist are named"
    assert "permanentFail" in done.stderr


def gpu(tmp_path: Path, path: str) -> subprocess.CompletedProcess[str]:
    return call(
        *("cwltool", "--no-container", "--enable-ext", "--outdir", tmp_path / "out"),
        *("--overrides", CWL / "overrides" / "gpu.yml"),
        *(CWL / "workflows" / "embed-sharded.cwl", CWL / "tests" / "jobs" / "embed-sharded.yml"),
        PATH=path,
    )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_the_override_asks_for_a_gpu(made: Path, tmp_path: Path) -> None:
    done = gpu(tmp_path, os.environ["PATH"])
    assert done.returncode != 0
    assert "CUDARequirement" in done.stderr


def test_a_step_with_the_override_runs_where_a_gpu_is_reported(made: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text(NVIDIA_SMI)
    fake.chmod(0o755)
    done = gpu(tmp_path, f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "out" / "embedded.h5ad").is_file()


def test_a_killed_run_goes_on_and_ends_with_the_tables_of_the_local_executor(
    made: Path, tmp_path: Path
) -> None:
    command = ["scdrugmap", "benchmark", str(made / "bench.yaml"), "-o", str(tmp_path / "run")]
    command += ["--executor", "cwl", "--shards", "2"]
    cache = tmp_path / "run" / "workflow" / "cache"
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while len(list(cache.glob("*.status"))) < 3 and time.monotonic() < deadline:
            assert first.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.2)
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(60)
    assert first.returncode == 130
    done_before = {
        path.name for path in cache.glob("*.status") if path.read_text().strip() == "success"
    }
    assert done_before
    succeed(*command)
    log = (tmp_path / "run" / "workflow" / "engine.log").read_text("utf-8")
    assert "Using cached output" in log
    for name in ("metrics.tsv", "cellmap.tsv.gz", "predictions-pooled-group.tsv.gz"):
        there = (tmp_path / "run" / name).read_bytes()
        assert there == (made / "run" / name).read_bytes(), name
    assert not cache.exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["name"] == "run"
    assert str(tmp_path) not in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_every_strategy_and_weights_of_a_folder_give_the_tables_of_the_local_executor(
    made: Path, tmp_path: Path
) -> None:
    run = tmp_path / "tuned"
    succeed("scdrugmap", "benchmark", made / "tuned.yaml", "-o", run, "--executor", "cwl")
    job = json.loads((run / "workflow" / "job.json").read_text("utf-8"))
    assert job["weights"] == [
        {"class": "Directory", "location": (made / "weights" / "scgpt").as_uri()}
    ]
    for name in ("metrics.tsv", "cellmap.tsv.gz", "predictions-lodo.tsv.gz"):
        assert (run / name).read_bytes() == (made / "tuned" / name).read_bytes(), name
    jobs = json.loads((run / "run.json").read_text("utf-8"))["models"]
    assert [item["strategy"] for item in jobs] == ["frozen", "lora", "full", "prompt"]
    log = (run / "workflow" / "engine.log").read_text("utf-8")
    assert "4 of 4 jobs are finished already" in log, "training was left to the last step"


def test_the_error_of_a_step_is_that_of_the_benchmark(made: Path, tmp_path: Path) -> None:
    done = call(
        *("scdrugmap", "benchmark", made / "bench.yaml", "--label", "no_such_column"),
        *("-o", tmp_path / "run", "--executor", "cwl"),
    )
    assert done.returncode == 2
    assert "no_such_column" in done.stderr

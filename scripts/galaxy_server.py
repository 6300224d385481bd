"""Test the Galaxy tools on a real Galaxy server, which this starts and stops.

    python scripts/galaxy_server.py test [--quick]    # galaxy_tools/*, the workflow, and the CLI's answers
    python scripts/galaxy_server.py serve             # until Ctrl-C; prints the address and the key

Runs in the environment of planemo (``make test-galaxy``), beside one of the server; scdrugmap itself is
taken from ``.venv``. A test that is skipped, or that did not run, is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "galaxy_tools"
DATA = TOOLS / "test-data"
PRODUCT = ROOT / ".venv" / "bin"
CHECKPOINT = ROOT / "plugins" / "scgpt" / "tests" / "golden"
WORKFLOW = TOOLS / "workflows" / "benchmark.ga"
TESTER = "tester@example.org"

BAD_IN_QUICK = ("check", "split", "predict")
"""Tools whose last test, bad input, is among the quick ones; of the others only the first, good, one."""
START_S, TEST_S = 600, 900
ENDED = ("ok", "error", "discarded", "failed_metadata", "paused")
PARALLEL = 2

GALAXY_YML = """\
galaxy:
  config_dir: {folder}
  data_dir: {folder}/data
  database_connection: "sqlite:///{folder}/data/universe.sqlite?isolation_level=IMMEDIATE"
  tool_config_file: {folder}/tool_conf.xml
  shed_tool_config_file: {folder}/shed_tool_conf.xml
  tool_data_table_config_path: {folder}/tables.xml
  data_manager_config_file: {folder}/data_manager_conf.xml
  shed_data_manager_config_file: {folder}/shed_data_manager_conf.xml
  galaxy_data_manager_data_path: {folder}/weights
  job_config_file: {folder}/job_conf.yml
  bootstrap_admin_api_key: {key}
  admin_users: {tester}
  conda_auto_init: false
  conda_auto_install: false
  enable_celery_tasks: false
  cleanup_job: always
"""

JOB_CONF = """\
runners:
  local: {load: "galaxy.jobs.runners.local:LocalJobRunner", workers: 2}
execution:
  default: local
  environments:
    local: {runner: local}
"""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    key: str
    """Of :data:`TESTER`, an administrator. galaxy-tool-test would make itself a key, and so make the
    key of every other test that runs invalid."""


@dataclass(frozen=True)
class ToolTest:
    """One ``<test>`` of a tool."""

    tool: str
    index: int

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.tool} test {self.index}"


def tool_files() -> list[Path]:
    """Return the tools' XML files, the data manager last."""
    verbs = sorted(path for path in TOOLS.glob("*/*.xml") if path.stem == path.parent.name)
    return [*verbs, *sorted(TOOLS.glob("data_managers/*/*.xml"))]


def tests_of(path: Path) -> list[ToolTest]:
    """Return the tests that a tool's file holds."""
    tool = ElementTree.parse(path).getroot()
    found = tool.findall("tests/test")
    return [ToolTest(tool.attrib["id"], index) for index in range(len(found))]


def chosen_tests(*, quick: bool) -> list[ToolTest]:
    """Return all tests, or the first of each verb and three bad inputs."""
    if not quick:
        return [test for path in tool_files() for test in tests_of(path)]
    verbs = [path for path in tool_files() if path.parent.parent == TOOLS]
    good = [tests_of(path)[0] for path in verbs]
    return good + [tests_of(path)[-1] for path in verbs if path.stem in BAD_IN_QUICK]


def configure(folder: Path, key: str) -> None:
    """Write the files of a server."""
    (folder / "data").mkdir(parents=True)
    verbs = [path for path in tool_files() if path.parent.parent == TOOLS]
    tools = "".join(f'  <tool file="{path}"/>\n' for path in verbs)
    upload = '  <tool file="data_source/upload.xml"/>\n'
    section = f'<section id="scdrugmap" name="scDrugMap">\n{tools}</section>\n'
    (folder / "tool_conf.xml").write_text(f"<toolbox>\n{upload}{section}</toolbox>\n", "utf-8")
    (folder / "shed_tool_conf.xml").write_text('<toolbox tool_path="shed_tools"/>\n', "utf-8")
    (folder / "shed_data_manager_conf.xml").write_text("<data_managers/>\n", "utf-8")
    managers = (TOOLS / "data_manager_conf.xml").read_text("utf-8")
    managers = managers.replace('tool_file="', f'tool_file="{TOOLS}/')
    (folder / "data_manager_conf.xml").write_text(managers, "utf-8")
    # The data manager adds to this table: a copy, so that the project's own stays as it is.
    table = (DATA / "scdrugmap_weights.loc").read_text("utf-8").replace("${__HERE__}", str(DATA))
    (folder / "scdrugmap_weights.loc").write_text(table, "utf-8")
    tables = (TOOLS / "tool_data_table_conf.xml.test").read_text("utf-8")
    tables = tables.replace("${__HERE__}/test-data", str(folder))
    (folder / "tables.xml").write_text(tables, "utf-8")
    (folder / "job_conf.yml").write_text(JOB_CONF, "utf-8")
    settings = GALAXY_YML.format(folder=folder, key=key, tester=TESTER)
    (folder / "galaxy.yml").write_text(settings, "utf-8")


@contextmanager
def running(environments: Path) -> Iterator[Server]:
    """Start a fresh server, wait until it answers, stop it at the end."""
    folder = environments / "run"
    shutil.rmtree(folder, ignore_errors=True)
    key = secrets.token_hex(16)
    configure(folder, key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = environments / "server" / "bin"
    variables = {
        **os.environ,
        "PATH": os.pathsep.join([str(own), str(PRODUCT), os.environ["PATH"]]),
        "SCDRUGMAP_WEIGHTS": str(CHECKPOINT),
    }
    command = [str(own / "galaxy-web"), "-c", str(folder / "galaxy.yml"), "-b", f"127.0.0.1:{port}"]
    began = time.monotonic()
    with (folder / "galaxy.log").open("w") as log:
        process = subprocess.Popen(
            command, env=variables, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process, folder / "galaxy.log")
            say(f"Galaxy answers at {url} after {time.monotonic() - began:.0f} s")
            yield Server(url, key_of_tester(url, key))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers; leave with its log when it does not."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urlopen(f"{url}/api/version", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(2)
    sys.exit(f"Galaxy did not start; the end of {log}:\n" + log.read_text("utf-8")[-4000:])


def run_test(test: ToolTest, server: Server, folder: Path) -> str:
    """Run one test of a tool; return what is wrong, or nothing."""
    result = folder / f"{test.tool}-{test.index}.json"
    command = [str(Path(sys.executable).parent / "galaxy-tool-test"), "-u", server.url]
    command += ["-k", server.key, "-t", test.tool, "-i", str(test.index), "--with-reference-data"]
    # Tests share a history by default, and the first one that ends deletes it.
    command += ["--test-data", str(DATA), "-j", str(result), "--no-history-reuse"]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TEST_S, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{test.name}: no end after {TEST_S} s"
    problem = judge(result)
    spent = f"{time.monotonic() - began:.0f} s"
    say(f"{'FAILED' if problem else 'passed'} {test.name} ({spent})")
    return f"{test.name}: {problem}\n{done.stdout[-1500:]}{done.stderr[-1500:]}" if problem else ""


def judge(result: Path) -> str:
    """Return what a result file says against a test; skipped, or no result, is a failure too."""
    if not result.exists():
        return "no result"
    found = json.loads(result.read_text("utf-8"))
    counts = {key: found["results"][key] for key in ("total", "errors", "failures", "skips")}
    if counts == {"total": 1, "errors": 0, "failures": 0, "skips": 0}:
        return ""
    said = [str(test["data"].get("output_problems") or test["data"]) for test in found["tests"]]
    return f"{counts} {' '.join(said)[:3000]}"


def run_workflow(server: Server, folder: Path) -> str:
    """Run the workflow; return what is wrong, or where its tables differ from the command line's."""
    from bioblend.galaxy import GalaxyInstance

    galaxy = GalaxyInstance(server.url, server.key)
    history = galaxy.histories.create_history("benchmark")["id"]
    cells = galaxy.tools.upload_file(str(DATA / "cohort.h5ad"), history, file_type="h5ad")
    cells_id = cells["outputs"][0]["id"]
    galaxy.datasets.wait_for_dataset(cells_id, maxwait=TEST_S, interval=2)
    workflow = galaxy.workflows.import_workflow_from_local_path(str(WORKFLOW))["id"]
    given = {"0": {"src": "hda", "id": cells_id}}
    invocation = galaxy.workflows.invoke_workflow(
        workflow, given, history_id=history, inputs_by="step_index"
    )["id"]
    began = time.monotonic()
    galaxy.invocations.wait_for_invocation(invocation, maxwait=2 * TEST_S, interval=3)
    made = finished(galaxy, history)
    say(f"workflow: {len(made)} datasets ({time.monotonic() - began:.0f} s)")
    wrong = [item["name"] for item in made if item["state"] != "ok"]
    if wrong:
        return f"workflow: failed at {wrong}"
    expected = folder / "expected"
    run_commands(expected)
    found = {
        galaxy.datasets.download_dataset(item["id"], use_default_filename=False)
        for item in made
        if item["extension"] == "tabular"
    }
    missing = [
        path.name for path in sorted(expected.glob("*.tsv")) if path.read_bytes() not in found
    ]
    return f"workflow: not as the command line writes them: {missing}" if missing else ""


def finished(galaxy: Any, history: str) -> list[dict[str, Any]]:
    """Wait until all jobs of a history have ended; return its datasets."""
    until = time.monotonic() + 2 * TEST_S
    while True:
        made = [
            item
            for item in galaxy.histories.show_history(history, contents=True, details="all")
            if item["history_content_type"] == "dataset"
        ]
        if all(item["state"] in ENDED for item in made) or time.monotonic() > until:
            return made
        time.sleep(3)


def run_commands(folder: Path) -> None:
    """Do with the command line what the workflow does."""
    folder.mkdir()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "SCDRUGMAP_CACHE": str(folder / "cache")}
    cells, splits = DATA / "cohort.h5ad", folder / "splits.tsv"

    def run(*arguments: object) -> None:
        command = [str(PRODUCT / "scdrugmap"), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, env=variables)

    run("split", cells, "--label", "response", "--group", "patient", "--folds", 3, "-o", splits)
    run("embed", cells, "--model", "randproj", "-o", "embedded.h5ad")
    answers = []
    for fold in range(3):
        for learner in (
            ("--estimator", "hvg-logreg"),
            ("--model", "randproj", "--embeddings", "embedded.h5ad"),
        ):
            name = f"{learner[1]}-{fold}"
            of = ("--splits", splits, "--fold", fold, *learner)
            run("train", cells, *of, "-o", f"{name}.zip")
            to = ("--splits", splits, "-o", f"{name}.tsv")
            run("predict", cells, "--predictor", f"{name}.zip", *to)
            answers.append(f"{name}.tsv")
    to = ("--comparisons", "comparisons.tsv", "-o", "metrics.tsv")
    run("evaluate", *answers, "--splits", splits, *to)


def key_of_tester(url: str, key: str) -> str:
    """Make a user and return their key: the first one, of the configuration, is nobody's."""
    from bioblend.galaxy import GalaxyInstance

    galaxy = GalaxyInstance(url, key)
    user = galaxy.users.create_local_user("tester", TESTER, secrets.token_hex(12))
    return str(galaxy.users.create_user_apikey(user["id"]))


def test(environments: Path, *, quick: bool) -> int:
    """Run the tests; return the exit code."""
    began = time.monotonic()
    tests = chosen_tests(quick=quick)
    folder = environments / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with running(environments) as server:
        with ThreadPoolExecutor(PARALLEL) as pool:
            problems = list(pool.map(lambda one: run_test(one, server, folder), tests))
        if not quick:
            problems.append(run_workflow(server, folder))
    problems = [text for text in problems if text]
    for text in problems:
        say(text)
    say(
        f"{len(tests)} tests of Galaxy tools{'' if quick else ' and the workflow'}, "
        f"{len(problems)} failed, none skipped ({time.monotonic() - began:.0f} s)"
    )
    return 1 if problems else 0


def serve(environments: Path) -> int:
    """Keep a server until Ctrl-C."""
    with running(environments) as server:
        say(f"key of {TESTER}: {server.key}")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["test", "serve"])
    parser.add_argument("--quick", action="store_true", help="at most 12 tests")
    parser.add_argument("--environments", type=Path, default=ROOT / ".galaxy")
    given = parser.parse_args()
    environments = given.environments.resolve()
    if given.what == "serve":
        return serve(environments)
    return test(environments, quick=given.quick)


if __name__ == "__main__":
    sys.exit(main())

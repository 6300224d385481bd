"""Test the Galaxy tools on a real Galaxy server, which this starts and stops.

    python scripts/galaxy_server.py test [--quick]    # the tools' own tests, and galaxy_checks.py
    python scripts/galaxy_server.py serve             # until Ctrl-C; prints the address and the key

Runs in the environment of planemo (``make test-galaxy``), beside one of the server; scdrugmap itself is
taken from ``.venv``. A test that is skipped, or that did not run, is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from xml.etree import ElementTree

from galaxy_checks import (
    CHECKPOINT,
    CHECKS,
    DATA,
    LONGEST_S,
    PRODUCT,
    ROOT,
    TOOLS,
    Check,
    Server,
    client,
    make_test_data,
    say,
)

TESTER = "tester@example.org"

BAD_IN_QUICK = ("check", "split", "predict")
"""Tools whose last test, bad input, is among the quick ones; of the others only the first, good, one."""
IN_QUICK_WORKFLOW = ("benchmark", "report")
"""Tools whose good test, among the quick ones, is the workflow of just these two."""
START_S = 600
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
  enable_celery_tasks: true
  metadata_strategy: directory_celery
  cleanup_job: always
"""

JOB_CONF = """\
runners:
  local: {load: "galaxy.jobs.runners.local:LocalJobRunner", workers: 2}
execution:
  default: local
  environments:
    local:
      runner: local
      env: [{name: SCDRUGMAP_WEIGHTS, value: CHECKPOINT}]
"""
"""The runner gives jobs a clean environment: what the server has does not reach them."""


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
    """Return all tests, or the first of each verb that no quick workflow runs, and three bad inputs."""
    if not quick:
        return [test for path in tool_files() for test in tests_of(path)]
    verbs = [path for path in tool_files() if path.parent.parent == TOOLS]
    good = [tests_of(path)[0] for path in verbs if path.stem not in IN_QUICK_WORKFLOW]
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
    (folder / "job_conf.yml").write_text(JOB_CONF.replace("CHECKPOINT", str(CHECKPOINT)), "utf-8")
    settings = GALAXY_YML.format(folder=folder, key=key, tester=TESTER)
    (folder / "galaxy.yml").write_text(settings, "utf-8")


@contextmanager
def running(environments: Path) -> Iterator[Server]:
    """Start a fresh server, wait until it answers, stop it at the end.

    A worker beside it does uploads and metadata: as jobs each would start a Python that imports all
    of Galaxy, 8 s of processor time, three times per test.
    """
    folder = environments / "run"
    shutil.rmtree(folder, ignore_errors=True)
    key = secrets.token_hex(16)
    configure(folder, key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = environments / "server" / "bin"
    web = [own / "galaxy-web", "-c", folder / "galaxy.yml", "-b", f"127.0.0.1:{port}"]
    worker = [own / "celery", "--app", "galaxy.celery", "worker"]
    worker += ["--concurrency", PARALLEL, "--pool", "threads", "--loglevel", "INFO"]
    worker += ["--queues", "celery,galaxy.internal,galaxy.external"]
    began = time.monotonic()
    with started(web, own, folder) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, folder / "galaxy-web.log")
        say(f"Galaxy answers at {url} after {time.monotonic() - began:.0f} s")
        with started(worker, own, folder):
            yield Server(url, key_of_tester(Server(url, key, folder)), folder)


@contextmanager
def started(command: list[object], own: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program of the server, which logs into the folder; stop it at the end."""
    variables = {
        **os.environ,
        "PATH": os.pathsep.join([str(own), str(PRODUCT), os.environ["PATH"]]),
        "GALAXY_CONFIG_FILE": str(folder / "galaxy.yml"),
    }
    words = [str(word) for word in command]
    with (folder / f"{Path(words[0]).name}.log").open("w") as log:
        process = subprocess.Popen(
            words, env=variables, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
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


def run_test(test: ToolTest, server: Server, data: Path, folder: Path) -> str:
    """Run one test of a tool; return what is wrong, or nothing."""
    result = folder / f"{test.tool}-{test.index}.json"
    command = [str(Path(sys.executable).parent / "galaxy-tool-test"), "-u", server.url]
    command += ["-k", server.key, "-t", test.tool, "-i", str(test.index), "--with-reference-data"]
    # Tests share a history by default, and the first one that ends deletes it.
    command += ["--test-data", str(data), "-j", str(result), "--no-history-reuse"]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONGEST_S, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        return told(test.name, f"no end after {LONGEST_S} s", began)
    problem = judge(result)
    if problem:
        problem = f"{problem}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    return told(test.name, problem, began)


def run_check(check: Check, server: Server, folder: Path) -> str:
    """Run one check of the server; return what is wrong, or nothing."""
    import bioblend

    place = folder / check.name.replace(" ", "-")
    place.mkdir()
    began = time.monotonic()
    try:
        problem = check.run(server, place)
    except (bioblend.ConnectionError, bioblend.TimeoutException, OSError, KeyError) as err:
        problem = f"{type(err).__name__}: {err}"
    return told(check.name, problem, began)


def told(name: str, problem: str, began: float) -> str:
    """Say how a test ended; return the problem with the name of the test."""
    say(f"{'FAILED' if problem else 'passed'} {name} ({time.monotonic() - began:.0f} s)")
    return f"{name}: {problem}" if problem else ""


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


def key_of_tester(server: Server) -> str:
    """Make a user and return their key: the first one, of the configuration, is nobody's."""
    galaxy = client(server)
    user = galaxy.users.create_local_user("tester", TESTER, secrets.token_hex(12))
    return str(galaxy.users.create_user_apikey(user["id"]))


def test(environments: Path, *, quick: bool, only: str) -> int:
    """Run the tests; return the exit code."""
    began = time.monotonic()
    tests = [one for one in chosen_tests(quick=quick) if re.search(only, one.name)]
    checks = [one for one in CHECKS if (one.quick or not quick) and re.search(only, one.name)]
    folder = environments / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(PARALLEL) as pool:
        making = pool.submit(make_test_data, folder)
        with running(environments) as server:
            data = making.result()
            longest_first = [
                *(partial(run_check, one, server, folder) for one in checks if not one.alone),
                *(partial(run_test, one, server, data, folder) for one in tests),
            ]
            problems = list(pool.map(lambda one: one(), longest_first))
            problems += [run_check(one, server, folder) for one in checks if one.alone]
    problems = [text for text in problems if text]
    for text in problems:
        say(text)
    total = len(tests) + len(checks)
    say(
        f"{total - len(problems)} of {total} tests on a Galaxy server passed, {len(problems)} failed, "
        f"none skipped ({time.monotonic() - began:.0f} s)"
    )
    return 1 if problems or not total else 0


def serve(environments: Path) -> int:
    """Keep a server until Ctrl-C."""
    with running(environments) as server:
        say(f"key of {TESTER}: {server.key}")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["test", "serve"])
    parser.add_argument("--quick", action="store_true", help="at most 12 tests")
    parser.add_argument("--only", default="", metavar="REGEX", help="tests whose name it matches")
    parser.add_argument("--environments", type=Path, default=ROOT / ".galaxy")
    given = parser.parse_args()
    environments = given.environments.resolve()
    if given.what == "serve":
        return serve(environments)
    return test(environments, quick=given.quick, only=given.only)


if __name__ == "__main__":
    sys.exit(main())

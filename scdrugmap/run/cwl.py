"""Run a benchmark with a workflow engine: cwltool on one machine, Toil on a cluster.

::

    runs/NAME/workflow/tools/ workflows/   the CWL files, as they were run
                       job.json            their inputs
                       engine.log          what the engine and the steps said
                       cache/ jobstore/    finished steps of a run that was stopped

The engine does the steps of :mod:`scdrugmap.run.steps`; the folder that the last of them makes
becomes the run folder. There is no cluster code of our own.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from scdrugmap.errors import (
    DataError,
    PluginError,
    ResourceError,
    ScDrugMapError,
    UsageError,
    WeightsError,
)
from scdrugmap.files import remove, write_json, write_text
from scdrugmap.progress import say
from scdrugmap.run.cwl_tools import STEPS, tool_files, workflow_files
from scdrugmap.run.finish import relocate
from scdrugmap.run.journal import CONFIG_FILE, HISTORY_FILE, LOCK_FILE, WORKFLOW_FOLDER, open_folder
from scdrugmap.run.record import RUN_FILE, read_run
from scdrugmap.run.tasks import weight_folders

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.execute import Run
    from scdrugmap.run.journal import RunFolder

Runner = Literal["cwltool", "toil"]
Container = Literal["none", "docker", "singularity", "podman"]

PROGRAMS: dict[str, str] = {"cwltool": "cwltool", "toil": "toil-cwl-runner"}
RUNNERS, CONTAINERS = tuple(PROGRAMS), ("none", "docker", "singularity", "podman")
LOG_FILE, JOB_FILE, WORKFLOW = "engine.log", "job.json", "workflows/benchmark.cwl"
_OUT, _SCRATCH = "out", ("cache", "jobstore", "temporary", "out")

_ERRORS: dict[int, type[ScDrugMapError]] = {
    2: UsageError,
    3: DataError,
    4: WeightsError,
    5: ResourceError,
}
_OUR_ERROR = re.compile(r"(?:^|\s)Error: (.+)")
_EXIT_CODE = re.compile(r"exited with status: (\d+)|exit(?:ed)? (?:with )?(?:code|value) (\d+)")
_GRACE_S = 20


@dataclass(frozen=True)
class Engine:
    """Which engine runs the steps, and how.

    Attributes
    ----------
    runner : {"cwltool", "toil"}
    batch_system : str
        Of Toil: ``single_machine``, ``slurm``, ``kubernetes``, ``aws_batch``, ...
    container : {"none", "docker", "singularity", "podman"}
        What the steps run in; ``none``: the scdrugmap on PATH.
    shards : int
        Shares into which the cells of each network are divided.
    arguments : tuple of str
        More options of the runner.
    """

    runner: Runner = "cwltool"
    batch_system: str = "single_machine"
    container: Container = "none"
    shards: int = 1
    arguments: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str]:
        """Return the command line that runs, or goes on with, the workflow in `folder`.

        Raises
        ------
        UsageError
            A batch system for cwltool, which has none.
        PluginError
            The runner is not installed.
        """
        if self.runner == "cwltool":
            if self.batch_system != "single_machine":
                raise UsageError(
                    f"cwltool runs on this machine only, not on {self.batch_system}",
                    hint="add --runner toil",
                )
            options = ["--parallel", "--cachedir", str(folder / "cache")]
            options += ["--tmpdir-prefix", f"{folder / 'temporary'}/"]
        else:
            store = folder / "jobstore"
            options = ["--batchSystem", self.batch_system, "--jobStore", str(store)]
            options += ["--workDir", str(folder / "temporary")]
            options += ["--batchLogsDir", str(folder / "temporary")]
            options += ["--retryCount", "2", "--statePollingWait", "1", "--clean", "onSuccess"]
            options += ["--restart"] if store.is_dir() else []
        if self.container == "none":
            options.append("--no-container")
        elif self.container != "docker":
            options.append(f"--{self.container}")
        return [
            _find(PROGRAMS[self.runner]),
            *options,
            *("--outdir", str(folder / _OUT)),
            *self.arguments,
            str(folder / WORKFLOW),
            str(folder / JOB_FILE),
        ]


def _find(program: str) -> str:
    beside = Path(sys.executable).parent / program
    found = shutil.which(program) or (str(beside) if beside.is_file() else None)
    if found is None:
        raise PluginError(
            f"{program} is not installed",
            hint="install it into an environment of its own, pip install 'toil[cwl]', and put that "
            "on PATH",
        )
    return found


def run_with_engine(
    config: BenchmarkConfig,
    output: Path,
    engine: Engine,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Run a benchmark with a workflow engine, or go on with one that was stopped.

    Parameters
    ----------
    config : BenchmarkConfig
    output : Path
        Folder of the run; engines of a cluster need it on storage that all nodes see.
    engine : Engine
    overwrite : bool
        Begin anew, whatever the folder holds.
    quiet : bool
        No progress and no notices.

    Returns
    -------
    Run
        Its tables are those of the local executor.

    Raises
    ------
    ScDrugMapError
        The error of the step that failed, or that of the local executor.
    UsageError
        The cells are described by a samplesheet, whose paths engines would break; a text model may
        ask a server, whose costs steps cannot limit together.
    PluginError
        The runner is not installed.
    """
    from scdrugmap.evaluation.tables import read_metrics
    from scdrugmap.run.asking import require_no_network
    from scdrugmap.run.execute import METRICS_FILE, Run

    config = config.resolved()
    if config.samplesheet is not None:
        raise UsageError(
            "a samplesheet names files where they are, and an engine moves them",
            hint="use --executor local or processes:N, or put its columns into obs of the files",
        )
    require_no_network(config)
    with open_folder(Path(output), config, overwrite=overwrite) as folder:
        place = folder.path.resolve() / WORKFLOW_FOLDER
        if not (folder.path / RUN_FILE).is_file():
            command = engine.command(place)
            folder.note("started", executor="cwl", runner=engine.runner, system=engine.batch_system)
            write_workflow(config, place, name=folder.path.resolve().name, shards=engine.shards)
            say(
                f"{Path(command[0]).name} runs the steps; they speak in {place / LOG_FILE}",
                quiet=quiet,
            )
            _run(command, place, folder)
            _collect(place / _OUT / folder.path.resolve().name, folder)
            folder.note("finished")
        for path in (path for name in _SCRATCH for path in place.glob(f"{name}*")):
            remove(path)
        run = Run(folder.path, read_run(folder.path), read_metrics(folder.path / METRICS_FILE))
        run = relocate(run, config)
    say(f"Results and report: {run.report}", quiet=quiet)
    return run


def write_workflow(config: BenchmarkConfig, folder: Path, *, name: str, shards: int) -> None:
    """Write the workflow of a benchmark and the job that runs it.

    A job that is there stays as it is: an engine goes on with what it began with.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    folder : Path
        ``workflow`` in the run folder.
    name : str
        Of the run.
    shards : int
    """
    if (folder / JOB_FILE).is_file():
        return
    for part in ("tools", "workflows", "temporary"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for file, text in tool_files(STEPS):
        write_text(folder / "tools" / file, text)
    for file, text in workflow_files():
        write_text(folder / "workflows" / file, text)
    write_json(
        folder / JOB_FILE,
        {
            "config": _place(folder.parent / CONFIG_FILE),
            "data": [_place(item.path) for item in config.data],
            "weights": [_place(Path(config.weights[model])) for model in weight_folders(config)],
            "shards": shards,
            "name": name,
        },
    )


def _place(path: Path) -> dict[str, str]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    kind = "Directory" if path.is_dir() else "File"
    return {"class": kind, "location": path.absolute().as_uri()}


def _run(command: Sequence[str], place: Path, folder: RunFolder) -> None:
    """Run the engine to its end; what it says goes to the log."""
    remove(place / _OUT)
    (place / "temporary").mkdir(exist_ok=True)
    log = place / LOG_FILE
    with open(log, "a", encoding="utf-8") as heard:
        began = heard.tell()
        process = subprocess.Popen(
            command, stdout=heard, stderr=heard, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _stop(process)
            folder.note("interrupted")
            say(f"Stopped: finished steps are kept in {place}.")
            raise
    if code:
        folder.note("failed", code=code)
        with open(log, encoding="utf-8", errors="replace") as told:
            told.seek(began)
            raise _failure(told, log, Path(command[0]).name)


def _stop(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    process.kill()
    process.wait()


def _failure(told: IO[str], log: Path, program: str) -> ScDrugMapError:
    """Return the error of the step that failed, as it was told in the log."""
    message, code = "", 0
    for line in told:
        if found := _OUR_ERROR.search(line):
            message = found[1].strip()
        if left := _EXIT_CODE.search(line):
            code = int(left[1] or left[2])
    if not message:
        return ResourceError(
            f"{program} could not run the workflow",
            hint=f"look at the end of {log}; the same command goes on with the steps that are "
            "missing",
        )
    return _ERRORS.get(code, DataError)(
        message, hint=f"said by a step of the workflow; all is in {log}"
    )


def _collect(made: Path, folder: RunFolder) -> None:
    """Move what the last step made into the run folder."""
    if not (made / RUN_FILE).is_file():
        raise ResourceError(
            f"the workflow left no run in {made}", hint="add --overwrite to begin anew"
        )
    for path in sorted(made.rglob("*")):
        target = folder.path / path.relative_to(made)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path.name not in (CONFIG_FILE, HISTORY_FILE, LOCK_FILE, RUN_FILE):
            shutil.move(path, target)
    shutil.move(made / RUN_FILE, folder.path / RUN_FILE)  # last: a run that has it is complete

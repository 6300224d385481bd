"""The last step of a benchmark on workflow engines: its folder, from what other machines made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import check_output
from scdrugmap.run.journal import CONFIG_FILE, RunFolder
from scdrugmap.run.plan import Job, Plan
from scdrugmap.run.tasks import list_networks, list_tasks

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.execute import Run


@dataclass(frozen=True)
class Finished:
    """What other machines did of a benchmark.

    Attributes
    ----------
    parts : tuple of Path
        Predictions of :func:`scdrugmap.run.steps.run_task`, under the names of their tasks.
    embeddings : tuple of Path
        Of :func:`scdrugmap.run.steps.join_shards`, one per network, in the order of the plan.
    """

    parts: tuple[Path, ...]
    embeddings: tuple[Path, ...]

    def networks(self, plan: Plan) -> dict[tuple[str, int | None], Path]:
        """Return the embeddings of each network; they need the order of cells beside them.

        Raises
        ------
        UsageError
            Another number of files than of networks.
        """
        networks = list_networks(plan)
        if len(networks) != len(self.embeddings):
            raise UsageError(
                f"the plan has {len(networks)} networks, and {len(self.embeddings)} files of "
                "embeddings are given",
                hint="give --embeddings for each network, in the order of the plan",
            )
        return dict(zip(networks, self.embeddings, strict=True))

    def place(self, plan: Plan, keys: Mapping[Job, str], folder: RunFolder) -> None:
        """Put predictions where a run keeps those of finished jobs.

        Raises
        ------
        DataError
            Predictions of another plan, or of another task of it.
        """
        from scdrugmap.evaluation.tables import read_predictions, write_predictions

        tasks = {task.name: task for task in list_tasks(plan)}
        for path in self.parts:
            task = tasks.get(path.name.partition(".")[0])
            if task is None:
                raise DataError(
                    f"{path} is of another plan than this configuration and these cells make",
                    hint="run the workflow again from its plan",
                )
            table = read_predictions(path)
            said = set(zip(table["model"], table["fold"], table["seed"], strict=True))
            if not said <= {(job.model, job.fold, job.seed) for job in task.jobs}:
                raise DataError(
                    f"{path} holds other predictions than its name says",
                    hint="run the workflow again from its plan",
                )
            for job in task.jobs:
                rows = table[table["seed"] == job.seed]
                if len(rows):
                    write_predictions(rows.reset_index(drop=True), folder.part(keys[job]))


def finish_run(
    config: BenchmarkConfig,
    output: Path,
    *,
    parts: Sequence[Path],
    embeddings: Sequence[Path] = (),
    quiet: bool = False,
) -> Run:
    """Evaluate and report what the tasks of a plan predicted.

    Parameters
    ----------
    config : BenchmarkConfig
        Resolved.
    output : Path
        New folder of the run.
    parts : sequence of Path
        Predictions of the tasks. What is missing is done here.
    embeddings : sequence of Path
        One per network, in the order of the plan.
    quiet : bool

    Returns
    -------
    Run
    """
    from scdrugmap.run.execute import run_benchmark

    check_output(output, overwrite=False, inputs=[*parts, *embeddings])
    finished = Finished(tuple(parts), tuple(embeddings))
    run = run_benchmark(config, output, finished=finished, quiet=quiet)
    return relocate(run, config_beside(config, output))


def config_beside(config: BenchmarkConfig, folder: Path) -> BenchmarkConfig:
    """Return a configuration whose files lie in `folder`: where an engine had them tells nobody."""
    return config.model_copy(
        update={
            "data": tuple(
                item.model_copy(update={"path": folder.resolve() / item.path.name})
                for item in config.data
            ),
            "weights": {
                name: path if path == "random" else str(folder.resolve() / Path(path).name)
                for name, path in config.weights.items()
            },
        }
    )


def relocate(run: Run, config: BenchmarkConfig) -> Run:
    """Write down where the files of a finished run are now, in its records and its report."""
    from scdrugmap.config import write_config
    from scdrugmap.report.build import build_report
    from scdrugmap.run.record import write_run

    record = run.record.model_copy(
        update={"name": run.folder.resolve().name, "config": config.plain(run.folder)}
    )
    write_config(config, run.folder / CONFIG_FILE)
    write_run(run.folder, record)
    build_report(run.folder, run.report)
    return replace(run, record=record)

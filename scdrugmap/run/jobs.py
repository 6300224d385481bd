"""One job of a benchmark: train on a fold, predict its test cells, keep the predictions.

A job runs on one thread, whoever runs it, so that its numbers do not depend on the executor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.plan import Job
    from scdrugmap.run.store import Store


@dataclass(frozen=True)
class Task:
    """A job and where everything is; small, so that it can be sent to another process.

    Attributes
    ----------
    job : Job
    config : BenchmarkConfig
    splits : Path
        Manifest of the job's protocol.
    part : Path
        Where the predictions go.
    store : Path or None
        Folder of the embeddings; None: there is no cache.
    """

    job: Job
    config: BenchmarkConfig
    splits: Path
    part: Path
    store: Path | None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its notices, or why it could not be done on these cells."""

    notices: tuple[str, ...] = ()
    failure: str = ""


class Bench:
    """What the jobs of one process share: open files, manifests and loaded models."""

    def __init__(self, config: BenchmarkConfig, store: Store) -> None:
        from scdrugmap.run.cohort import open_sources

        self.config, self.store = config, store
        self._stack = ExitStack()
        self.files: list[Cells] = self._stack.enter_context(open_sources(config))
        for cells in self.files:
            cells.fingerprints()  # parts of these cells take theirs from here
        self._sources: dict[str, list[Cells]] = {}
        self._splits: dict[Path, pd.DataFrame] = {}
        self._models: dict[str, LoadedModel] = {}

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def model(self, name: str) -> LoadedModel:
        """Return a model, loaded once."""
        from scdrugmap.run.models import load

        if name not in self._models:
            self._models[name] = load(self.config, name)
        return self._models[name]

    def sources(self, splits: pd.DataFrame) -> list[Cells]:
        """Return the cells of each file that a manifest knows, opened once per manifest."""
        split_id = str(splits["split_id"].iloc[0])
        if split_id not in self._sources:
            self._sources[split_id] = [
                part for cells in self.files if (part := cells_of(cells, splits)).n_cells
            ]
        return self._sources[split_id]

    def run(self, task: Task) -> Outcome:
        """Do a task and write its part."""
        from scdrugmap.evaluation.tables import read_splits, write_predictions

        if task.splits not in self._splits:
            self._splits[task.splits] = read_splits(task.splits)
        with one_thread():
            try:
                predictions, notices = self._predict(task.job, self._splits[task.splits])
            except DataError as err:
                return Outcome(failure=err.message)
        write_predictions(predictions, task.part)
        return Outcome(notices)

    def _predict(self, job: Job, splits: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
        from scdrugmap.train.predict import predict_cells
        from scdrugmap.train.train import train_predictor

        config, sources = self.config, self.sources(splits)
        how: dict[str, Any] = {
            "store": self.store,
            "device": config.device,
            "token_budget": config.token_budget,
            "min_genes": config.min_genes,
            "quiet": True,
        }
        loaded = self.model(job.model) if job.kind == "model" else None
        predictor = train_predictor(
            sources,
            splits,
            fold=job.fold,
            seed=job.seed,
            estimator=job.model if job.kind == "estimator" else None,
            model=loaded,
            strategy="frozen" if loaded is None else job.strategy,
            head=job.head,
            settings=config.settings.get(job.model, {}) if loaded is None else None,
            precision=config.precision,
            sample=config.sample or config.group if loaded is not None else None,
            **how,
        )
        test = splits[(splits["fold"] == job.fold) & (splits["role"] == "test")]
        parts = []
        for cells in sources:
            # The finished parts of an embedding are those of all cells; estimators have none.
            part = cells if loaded is not None else cells_of(cells, test)
            if part.n_cells:
                rows = predict_cells(predictor, part, splits=splits, model=loaded, **how).cells
                parts.append(rows[rows["role"].isin(["test", "train"]) & _is_test(rows, test)])
        return pd.concat(parts, ignore_index=True), predictor.info.notices


def cells_of(cells: Cells, table: pd.DataFrame) -> Cells:
    """Return the cells of a file that a table names, in file order."""
    own = table.loc[table["dataset"] == cells.name, "cell"]
    return cells.subset(np.flatnonzero(pd.Index(cells.names).isin(pd.Index(own, dtype=object))))


def _is_test(rows: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    wanted = pd.MultiIndex.from_frame(test[["dataset", "cell"]])
    return np.asarray(pd.MultiIndex.from_frame(rows[["dataset", "cell"]]).isin(wanted))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _bench(config_json: str, store: Path | None) -> Bench:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.store import Store

    kept = Store.disabled() if store is None else Store(store, quiet=True)
    return Bench(BenchmarkConfig.model_validate_json(config_json), kept)


def run_in_process(task: Task) -> Outcome:
    """Do a task in a worker process, which keeps what its next task can use."""
    return _bench(task.config.model_dump_json(), task.store).run(task)


def start_worker() -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and stay on one thread."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"

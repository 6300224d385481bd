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
from scdrugmap.run.plan import Job
from scdrugmap.train.settings import FINE_TUNING

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.embeddings import CellRows, MappedEmbeddings
    from scdrugmap.run.entries import Entry
    from scdrugmap.run.store import Store
    from scdrugmap.text.load import LoadedText
    from scdrugmap.train.predictor import Predictor


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
    embeddings : Path or None
        Embeddings of the job's network, for jobs that read them.
    store : Path or None
        Folder of the embeddings; None: there is no cache.
    """

    job: Job
    config: BenchmarkConfig
    splits: Path
    part: Path
    embeddings: Path | None
    store: Path | None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its notices, or why it could not be done on these cells."""

    notices: tuple[str, ...] = ()
    failure: str = ""


class Bench:
    """What the jobs of one process share: open files, manifests, models and their embeddings."""

    def __init__(self, config: BenchmarkConfig, store: Store, rows: Path | None = None) -> None:
        from scdrugmap.run.cohort import open_sources

        self.config, self.store = config, store
        self._rows_folder = rows  # of the order of cells; None: beside the embeddings
        self._stack = ExitStack()
        self.files: list[Cells] = self._stack.enter_context(open_sources(config))
        for cells in self.files:
            cells.fingerprints()  # parts of these cells take theirs from here
        self._sources: dict[str, list[Cells]] = {}
        self._splits: dict[Path, pd.DataFrame] = {}
        self._models: dict[tuple[str, int | None], LoadedModel] = {}
        self._texts: dict[tuple[str, int | None], LoadedText] = {}
        self._rows: dict[Path, CellRows] = {}
        self._embeddings: dict[Path, MappedEmbeddings] = {}

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def model(self, entry: Entry) -> LoadedModel:
        """Return the model of an entry, loaded once."""
        from scdrugmap.run.models import load

        if entry.network not in self._models:
            self._models[entry.network] = load(self.config, *entry.network)
        return self._models[entry.network]

    def text(self, entry: Entry) -> LoadedText:
        """Return the text model of an entry, loaded once."""
        from scdrugmap.run.models import load_text

        if entry.network not in self._texts:
            self._texts[entry.network] = load_text(self, entry)
        return self._texts[entry.network]

    def embeddings(self, path: Path) -> MappedEmbeddings:
        """Return the embeddings of a network, mapped into memory once."""
        from scdrugmap.run.embeddings import CellRows, MappedEmbeddings

        if path not in self._embeddings:
            folder = self._rows_folder or path.parent
            if folder not in self._rows:
                self._rows[folder] = CellRows.read(folder)
            self._embeddings[path] = MappedEmbeddings(path, self._rows[folder])
        return self._embeddings[path]

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
                predictions, notices = self._predict(task, self._splits[task.splits])
            except DataError as err:
                return Outcome(failure=err.message)
        write_predictions(predictions, task.part)
        return Outcome(notices)

    def _predict(self, task: Task, splits: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
        from scdrugmap.train.predict import predict_cells

        job, sources = task.job, self.sources(splits)
        predictor = self._train(task, sources, splits)
        test = splits[(splits["fold"] == job.fold) & (splits["role"] == "test")]
        parts = []
        for cells in sources:
            part = cells_of(cells, test)
            if part.n_cells:
                parts.append(predict_cells(predictor, part, splits=splits, quiet=True).cells)
        rows = pd.concat(parts, ignore_index=True)
        return rows.assign(model=job.model, seed=job.seed), predictor.info.notices

    def _train(self, task: Task, sources: list[Cells], splits: pd.DataFrame) -> Predictor:
        """Train the predictor of a job; it is ready to predict with what it was trained with."""
        from scdrugmap.train.train import train_predictor

        job, config = task.job, self.config
        how: dict[str, Any] = {"fold": job.fold, "seed": job.seed, "quiet": True}
        if job.kind == "estimator":
            settings = config.settings.get(job.entry.model, {})
            return train_predictor(
                sources, splits, estimator=job.entry.model, settings=settings, **how
            )
        how |= {
            "strategy": job.strategy,
            "device": config.device,
            "precision": config.precision,
            "token_budget": config.token_budget,
            "sample": config.sample or config.group,
        }
        if job.kind == "text":
            predictor = train_predictor(
                sources, splits, model=self.text(job.entry), shots=job.shots, **how
            )
            return self._may_ask(predictor, task)
        how |= {"head": job.head, "store": self.store, "min_genes": config.min_genes}
        if job.strategy in FINE_TUNING:
            return self._fine_tune(task, sources, splits, how)
        assert task.embeddings is not None
        held = self.embeddings(task.embeddings)
        return train_predictor(sources, splits, model=self.model(job.entry), held=held, **how)

    def _fine_tune(
        self, task: Task, sources: list[Cells], splits: pd.DataFrame, how: dict[str, Any]
    ) -> Predictor:
        """Fine-tune a network; a killed training goes on from its last evaluation."""
        from scdrugmap.run.store import Store
        from scdrugmap.train.checkpoint import SUFFIX, Checkpoint
        from scdrugmap.train.train import train_predictor
        from scdrugmap.train.tuned import TunedScorer

        checkpoint = Checkpoint(task.part.with_name(task.part.name + SUFFIX), resume=True)
        predictor = train_predictor(
            sources,
            splits,
            model=self.model(task.job.entry),
            tuning=task.job.tuning,
            checkpoint=checkpoint,
            **how,
        )
        checkpoint.remove()
        scorer = predictor.scorer()
        if isinstance(scorer, TunedScorer):  # nobody will ask for these embeddings again
            scorer.embedder.store = Store.disabled()
        return predictor

    def _may_ask(self, predictor: Predictor, task: Task) -> Predictor:
        """Let a text model ask what the configuration allows."""
        from scdrugmap.run.asking import make_asking
        from scdrugmap.text.scorer import Prompting, PromptScorer

        scorer = predictor.scorer()
        if isinstance(scorer, PromptScorer):
            asking = make_asking(self.config, self.store, task.part.parent)
            scorer.prompting = Prompting(asking, scorer.prompting.facts)
        return predictor


def cells_of(cells: Cells, table: pd.DataFrame) -> Cells:
    """Return the cells of a file that a table names, in file order."""
    own = table.loc[table["dataset"] == cells.name, "cell"]
    return cells.subset(np.flatnonzero(pd.Index(cells.names).isin(pd.Index(own, dtype=object))))


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

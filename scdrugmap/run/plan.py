"""The jobs of a benchmark: protocol x model x strategy x fold x seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scdrugmap.errors import DataError, UsageError
from scdrugmap.run.budget import job_tuning
from scdrugmap.run.entries import Entry, list_entries
from scdrugmap.train.settings import FINE_TUNING, FineTuning

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig, Family, Head
    from scdrugmap.evaluation.protocols import Protocol
    from scdrugmap.evaluation.splits import Split
    from scdrugmap.run.cohort import Cohort
    from scdrugmap.run.costs import Cost


@dataclass(frozen=True)
class Job:
    """Train on one fold with one seed, and predict the test cells of that fold.

    Attributes
    ----------
    protocol : str
    family : {"sound", "paper"}
    entry : Entry
        What is trained.
    head : {"logistic", "mlp"} or None
    tuning : FineTuning or None
    shots : int
    fold : int
    seed : int
        Of training; of permuted labels also the number of the permutation.
    """

    protocol: str
    family: Family
    entry: Entry
    head: Head | None
    tuning: FineTuning | None
    shots: int
    fold: int
    seed: int

    @property
    def model(self) -> str:
        """Name in the tables."""
        return self.entry.name

    @property
    def kind(self) -> Literal["estimator", "model", "text"]:
        """Whether it is an estimator, a model that embeds, or one that answers."""
        return self.entry.kind

    @property
    def strategy(self) -> str:
        """How the model is used."""
        return self.entry.strategy

    @property
    def permutation(self) -> int | None:
        """Number of the permutation of labels; None: the labels as they are."""
        return self.seed if self.entry.permuted else None

    @property
    def title(self) -> str:
        """The job in words."""
        how = "" if self.kind == "estimator" else f" {self.strategy}"
        return f"{self.protocol}, {self.model}{how}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Refusal:
    """A protocol that cannot be evaluated on these cells."""

    protocol: str
    error: DataError


@dataclass(frozen=True)
class Plan:
    """The cells, the splits and the jobs of a benchmark.

    Attributes
    ----------
    config : BenchmarkConfig
        Resolved.
    cohort : Cohort
    entries : tuple of Entry
        The rows of the results.
    splits : dict of str to Split
        By protocol.
    permuted : dict of (str, int) to Split
        Of permuted labels, by protocol and number of the permutation.
    refusals : tuple of Refusal
    notices : tuple of str
        What is left out, and why.
    jobs : tuple of Job
    costs : tuple of Cost
    """

    config: BenchmarkConfig
    cohort: Cohort
    entries: tuple[Entry, ...]
    splits: dict[str, Split]
    permuted: dict[tuple[str, int], Split]
    refusals: tuple[Refusal, ...]
    notices: tuple[str, ...]
    jobs: tuple[Job, ...]
    costs: tuple[Cost, ...] = ()

    def split_of(self, job: Job) -> Split:
        """Return the split that a job is trained and tested on."""
        if job.permutation is None:
            return self.splits[job.protocol]
        return self.permuted[job.protocol, job.permutation]


def make_plan(config: BenchmarkConfig) -> Plan:
    """Read the cells, make the splits and list the jobs; nothing is trained.

    Parameters
    ----------
    config : BenchmarkConfig

    Raises
    ------
    UsageError, PluginError
        A file, column, model or protocol does not exist; a model does not offer a strategy.
    DataError
        The cells cannot be used, or every protocol refuses them.
    """
    from scdrugmap.run.cohort import read_cohort

    config = config.resolved()
    entries, left_out = list_entries(config)
    cohort = read_cohort(config)
    splits, refusals = make_splits(config, cohort)
    permuted, said = _permuted_splits(config, cohort, splits, entries)
    said += _unanswered(splits, entries)
    plan = Plan(config, cohort, entries, splits, permuted, refusals, (*left_out, *said), jobs=())
    plan = replace(plan, jobs=tuple(list_jobs(plan)))
    if not plan.jobs:
        raise UsageError(f"there is nothing to run: {plan.notices[-1]}")
    return plan


def plan_with_costs(config: BenchmarkConfig) -> Plan:
    """Return the plan, with what it takes on this machine; arguments as `make_plan`."""
    from scdrugmap.run.costs import estimate_costs

    plan = make_plan(config)
    return replace(plan, costs=estimate_costs(plan))


def make_splits(
    config: BenchmarkConfig, cohort: Cohort
) -> tuple[dict[str, Split], tuple[Refusal, ...]]:
    """Divide the cells under every protocol; a protocol that refuses them stops no other.

    Raises
    ------
    DataError
        Every protocol refuses them; the reason of the first.
    """
    splits: dict[str, Split] = {}
    refusals: list[Refusal] = []
    for protocol in config.protocols:
        try:
            splits[protocol] = _split(config, cohort.design, protocol)
        except DataError as err:
            refusals.append(Refusal(protocol, err))
    if not splits:
        raise refusals[0].error
    return splits, tuple(refusals)


def _split(config: BenchmarkConfig, design: Any, protocol: str) -> Split:
    from scdrugmap.evaluation.protocols import get_protocol
    from scdrugmap.evaluation.splits import make_split

    chosen = get_protocol(protocol)
    return make_split(
        design,
        protocol,
        folds=config.n_folds(chosen.family),
        seed=config.split_seed,
        validation=config.validation,
        targets=config.targets if chosen.holds_out else (),
        draws=config.shot_draws,
    )


def _permuted_splits(
    config: BenchmarkConfig, cohort: Cohort, splits: dict[str, Split], entries: tuple[Entry, ...]
) -> tuple[dict[tuple[str, int], Split], list[str]]:
    """Divide the cells again with labels that were dealt out anew over groups."""
    from scdrugmap.evaluation.splits import permute_labels

    made: dict[tuple[str, int], Split] = {}
    refused: dict[str, str] = {}
    if not any(entry.permuted for entry in entries):
        return {}, []
    for number in range(config.permutations):
        design = permute_labels(cohort.design, number)
        for protocol, split in splits.items():
            if not split.protocol.trains:
                continue
            try:
                made[protocol, number] = _split(config, design, protocol)
            except DataError as err:
                refused.setdefault(protocol, err.message)
    return made, [
        f"{protocol}: the control permuted cannot be evaluated: {reason}"
        for protocol, reason in refused.items()
    ]


def list_jobs(plan: Plan) -> Iterator[Job]:
    """Give the jobs in the order in which they run: cheap answers first."""
    config = plan.config
    for entry in plan.entries:
        for protocol, split in plan.splits.items():
            family = split.protocol.family
            if not _answers(split.protocol, entry):
                continue
            for seed in _seeds(config, entry):
                table = plan.permuted.get((protocol, seed)) if entry.permuted else split
                if table is None:
                    continue
                cells = _training_cells(table)
                for fold in sorted(cells):
                    yield Job(
                        protocol=protocol,
                        family=family,
                        entry=entry,
                        head=_head(config, entry, family),
                        tuning=job_tuning(config, entry, family, cells[fold]),
                        shots=_shots(config, entry, split.protocol),
                        fold=fold,
                        seed=seed,
                    )


def _answers(protocol: Protocol, entry: Entry) -> bool:
    """Whether an entry has an answer to the question of a protocol."""
    if not protocol.trains:
        return entry.strategy == "prompt"
    return not (protocol.frozen and entry.strategy in FINE_TUNING)


def _unanswered(splits: dict[str, Split], entries: Sequence[Entry]) -> list[str]:
    """Say which entries take no part in a protocol, and why."""
    notices = []
    for name, split in splits.items():
        reason = "the encoder stays as it is" if split.protocol.trains else "nothing is trained"
        out = [
            f"{entry.name} {entry.strategy}" if entry.kind == "model" else entry.name
            for entry in entries
            if not _answers(split.protocol, entry)
        ]
        if len(out) == len(entries):
            notices.append(f"{name}: {reason}, and no text model is there to answer")
        elif out:
            notices.append(f"{name}: {reason}: without {', '.join(out)}")
    return notices


def _shots(config: BenchmarkConfig, entry: Entry, protocol: Protocol) -> int:
    return config.shots if entry.strategy == "prompt" and protocol.trains else 0


def _seeds(config: BenchmarkConfig, entry: Entry) -> tuple[int, ...]:
    """Return the seeds of an entry; a question without examples has no use for several."""
    if entry.permuted:
        return tuple(range(config.permutations))
    if entry.strategy == "prompt" and not config.shots:
        return config.seeds[:1]
    return config.seeds


def _head(config: BenchmarkConfig, entry: Entry, family: Family) -> Head | None:
    if entry.kind != "model":
        return None
    own = config.overrides.get(entry.model)
    return (own.heads if own else {}).get(family, config.heads[family])


def _training_cells(split: Split) -> dict[int, int]:
    """Return the number of training cells of each fold."""
    table = split.table
    train = (table["role"] == "train").to_numpy()
    folds, place = np.unique(table["fold"], return_inverse=True)
    n_cells = np.bincount(place, train, len(folds)).astype(int)
    return dict(zip(folds.tolist(), n_cells.tolist(), strict=True))

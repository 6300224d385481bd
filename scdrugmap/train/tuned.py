"""The strategies ``lora`` and ``full``: a network that was fine-tuned, and the head on top."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap import __version__
from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.model.batching import Network
from scdrugmap.model.device import peak_memory
from scdrugmap.model.parts import group_indices
from scdrugmap.model.recompute import recomputed_layers
from scdrugmap.model.token_store import CellTokens, store_tokens
from scdrugmap.progress import Progress, say
from scdrugmap.specs import LoraDefaults
from scdrugmap.train.domain import Domain
from scdrugmap.train.finetune import Tuner
from scdrugmap.train.frozen import HEAD_FILE, Embedder, FrozenScorer
from scdrugmap.train.gather import Chosen, draw_evenly, joined
from scdrugmap.train.holdout import hold_out_groups
from scdrugmap.train.labelled import LabelledTokens
from scdrugmap.train.processes import Processes
from scdrugmap.train.record import HistoryRow, StoppedBy, TuningInfo
from scdrugmap.train.trainee import (
    ADAPTERS_FILE,
    NETWORK_FILE,
    Trainee,
    require_change,
    restore_network,
)

if TYPE_CHECKING:
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.modelkit.contract import CellModel
    from scdrugmap.specs import ModelSpec
    from scdrugmap.train.checkpoint import Checkpoint
    from scdrugmap.train.heads import Head, HeadName
    from scdrugmap.train.settings import FineTuning

VALIDATION_CELLS = 2_000
"""Most cells, drawn evenly over groups, whose loss tells when to stop."""

REFERENCE_CELLS = 2_048
"""Most training cells, drawn evenly over groups, that the head begins with, and whose embeddings
stand for all training cells afterwards."""

_TRIED_CELLS = 32
"""About how many cells are embedded before and after, to see what the training changed."""

_CELLS_PER_ADAPTER = 4
"""Cells that are embedded once without each adapter."""


class TunedScorer(FrozenScorer):
    """A fine-tuned model, and a head on its embeddings."""

    def __init__(self, embedder: Embedder, head: Head, name: str, data: bytes) -> None:
        super().__init__(embedder, head)
        self._name, self._data = name, data

    def files(self) -> dict[str, bytes]:
        """Return head and adapters, or head and the tensors that changed."""
        return {**super().files(), self._name: self._data}


@dataclass(frozen=True)
class TunedFit:
    """What came out of :func:`fit_tuned`.

    Attributes
    ----------
    scorer : TunedScorer
    used : list of Chosen
        Cells that were learnt from, or that told when to stop, of the training role.
    domain : Domain
    info : TuningInfo
    notices : list of str
    """

    scorer: TunedScorer
    used: list[Chosen]
    domain: Domain
    info: TuningInfo
    notices: list[str]


def resolve_lora(spec: ModelSpec, settings: FineTuning) -> LoraDefaults:
    """Return the adapters that settings and the model's own defaults make together.

    Raises
    ------
    PluginError
        The model names no targets, and neither do the settings.
    """
    given = {
        "targets": settings.targets,
        "r": settings.r,
        "alpha": settings.alpha,
        "dropout": settings.dropout,
    }
    own = {} if spec.lora is None else spec.lora.model_dump()
    chosen = own | {name: value for name, value in given.items() if value is not None}
    if "targets" not in chosen:
        raise PluginError(
            f"model {spec.name} does not say where adapters go", hint="name them: --lora-targets"
        )
    return LoraDefaults.model_validate(chosen)


def restore_tuned(
    embedder: Embedder, info: TuningInfo, head: HeadName, dim: int, files: dict[str, bytes]
) -> TunedScorer:
    """Return the scorer whose :meth:`TunedScorer.files` were `files`.

    Parameters
    ----------
    embedder : Embedder
        With the model as it was before training, which is left as it is.
    info : TuningInfo
    head : {"logistic", "mlp"}
    dim : int
        Width of the embedding that the head reads.
    files : dict of str to bytes

    Raises
    ------
    DataError
        The files are damaged, or of another network.
    """
    name = NETWORK_FILE if info.lora is None else ADAPTERS_FILE
    model = restore_network(embedder.loaded.model, info.lora, files[name], name)
    tuned = _with_network(embedder, model, name, files[name])
    frozen = FrozenScorer.restored(tuned, head, dim, files[HEAD_FILE])
    return TunedScorer(tuned, frozen.head, name, files[name])


def fit_tuned(
    embedder: Embedder,
    strategy: str,
    head: HeadName,
    chosen: Sequence[Chosen],
    validation: Sequence[Chosen],
    settings: FineTuning,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
    quiet: bool = False,
) -> TunedFit:
    """Fine-tune a model and a head on training cells.

    Parameters
    ----------
    embedder : Embedder
        The model, which is left as it is, and how it is run.
    strategy : {"lora", "full"}
    head : {"logistic", "mlp"}
    chosen : sequence of Chosen
        Training cells; both labels occur.
    validation : sequence of Chosen
        Cells that tell when to stop; without any of both labels, groups of `chosen` do.
    settings : FineTuning
    seed : int
    checkpoint : Checkpoint, optional
    quiet : bool

    Raises
    ------
    DataError
        The cells that the model can read have one label only.
    PluginError
        The model's own targets match nothing, an adapter has no effect, or the network does not
        change.
    UsageError
        The network is too large to be stored; a checkpoint of another training; targets that the
        settings name match nothing; no column of samples for a model whose cells see each other.
    """
    loaded = embedder.loaded
    lora = resolve_lora(loaded.spec, settings) if strategy == "lora" else None
    processes = Processes(embedder.device)
    quiet = quiet or processes.number > 0
    if loaded.spec.cell_batching == "group" and embedder.sample is None:
        raise UsageError(
            f"{loaded.name} reads the cells of a sample together, and no column of samples is named",
            hint="name it with --sample, here and in predict: cells then keep the company they "
            "were trained in",
        )
    named = settings.targets is not None
    trainee = Trainee(loaded.model, lora, seed=seed, name=loaded.name, named=named)
    source, trained, held_out = _stopping_cells(chosen, validation, settings, seed)
    data, trained = _read(embedder, trained, quiet=quiet)
    _require_both_labels(data.y, trained, chosen, loaded.name)
    aside, held_out = _read(embedder, held_out, quiet=quiet)
    if held_out:
        aside = aside.take(_evenly(held_out, VALIDATION_CELLS, seed))
    else:
        source = "none"
    shown = _evenly(trained, REFERENCE_CELLS, seed)
    network = Network(
        trainee.model,
        device=processes.device,
        precision=embedder.precision,
        token_budget=embedder.token_budget,
        name=loaded.name,
    )
    tried = shown[:: max(1, len(shown) // _TRIED_CELLS)]
    before = data.embed(network, tried)
    if checkpoint is not None:
        checkpoint.record = {
            "scdrugmap": __version__,
            "model": loaded.identity(),
            "strategy": strategy,
            "settings": settings.model_dump(mode="json"),
            "lora": None if lora is None else lora.model_dump(mode="json"),
            "head": head,
            "seed": seed,
            "precision": network.precision,
            "cells": _digest(trained),
            "held out": _digest(held_out),
        }
    tuner = Tuner(
        trainee,
        data,
        aside if len(aside.y) else None,
        settings,
        strategy=strategy,
        head=head,
        start=shown,
        seed=seed,
        processes=processes,
        precision=embedder.precision,
        token_budget=embedder.token_budget,
        checkpoint=checkpoint,
        quiet=quiet,
    )
    _announce(tuner, trained, source, held_out, quiet=quiet)
    recompute = recomputed_layers(trainee.module) if settings.gradient_checkpointing else None
    with recompute or nullcontext():
        course = tuner.run()
    what = "the adapters" if lora else "the training"
    effect = require_change(before, data.embed(network, tried), what)
    few = data.blocks(tried)[0][:_CELLS_PER_ADAPTER]
    exact = Network(trainee.model, device=processes.device)
    trainee.require_acting_adapters(lambda: data.embed(exact, few))
    with Progress("embed training cells", len(shown), quiet=quiet) as progress:
        domain = Domain.of(data.embed(network, shown, progress))
    name, content = trainee.learnt_file()
    info = TuningInfo(
        settings=settings,
        lora=lora,
        adapted=trainee.adapted,
        n_trained=sum(p.numel() for p in trainee.trainable().values()),
        step_cells=tuner.plan.step_cells,
        token_budget=course.budget,
        steps_per_epoch=tuner.steps_per_epoch,
        n_steps=course.step,
        best_step=course.best_step,
        stopped_early=course.stopped,
        stopped_by=source,
        n_held_out_cells=len(aside.y),
        n_held_out_groups=len(set(aside.groups)),
        history=tuple(HistoryRow.model_validate(row) for row in course.history),
        effect=float(f"{effect:.4g}"),
        n_processes=processes.count,
        cells_per_s=float(f"{course.cells / max(course.seconds, 1e-9):.4g}"),
        tokens_per_s=float(f"{course.tokens / max(course.seconds, 1e-9):.4g}"),
        peak_bytes=peak_memory(processes.device),
    )
    scorer = TunedScorer(
        _with_network(embedder, trainee.model, name, content),
        trainee.head.learnt(),
        name,
        content,
    )
    scorer.domain = domain
    seen = joined(trained, held_out) if source == "training groups" else trained
    return TunedFit(scorer, seen, domain, info, _notices(loaded, lora, source, chosen))


def _stopping_cells(
    chosen: Sequence[Chosen], validation: Sequence[Chosen], settings: FineTuning, seed: int
) -> tuple[StoppedBy, list[Chosen], list[Chosen]]:
    """Return what tells when to stop, the cells to train on, and those that tell."""
    if not settings.patience:
        return "none", list(chosen), []
    if validation and len({y for part in validation for y in part.y}) > 1:
        return "validation cells", list(chosen), list(validation)
    trained, held_out = hold_out_groups(chosen, settings.hold_out, seed)
    return "training groups" if held_out else "none", trained, held_out


def _read(
    embedder: Embedder, chosen: Sequence[Chosen], *, quiet: bool
) -> tuple[LabelledTokens, list[Chosen]]:
    """Tokenise cells, and leave out those of which the model knows no gene."""
    tokens, used = [], []
    for part in chosen:
        found = store_tokens(embedder.job(part.cells, quiet=quiet), part.index)
        known = np.flatnonzero(found.usable)
        if len(known):
            tokens.append(found.subset(known))
            used.append(part.take(known))
    empty = np.zeros(0, object)
    grouped = embedder.loaded.spec.cell_batching == "group"
    samples = np.concatenate([empty, *(part.samples for part in used)])
    sequences = np.zeros(len(samples), np.int64)
    for number, members in enumerate(group_indices(samples, len(samples)) if grouped else []):
        sequences[members] = number
    return LabelledTokens(
        CellTokens.concatenate(tokens),
        np.concatenate([np.zeros(0), *(part.y for part in used)]),
        np.concatenate([empty, *(part.groups for part in used)]),
        sequences if grouped else None,
    ), used


def _require_both_labels(
    y: np.ndarray, trained: Sequence[Chosen], chosen: Sequence[Chosen], name: str
) -> None:
    if not 0 < y.sum() < len(y):
        raise DataError(
            f"{name} can read {len(y):,} of {sum(len(part.index) for part in chosen):,} training "
            "cells, and those have one label",
            hint="see `scdrugmap check` for the genes that the model knows",
        )


def _evenly(chosen: Sequence[Chosen], most: int, seed: int) -> np.ndarray:
    """Draw at most about `most` cells evenly over groups: positions in all cells of `chosen`."""
    positions, start = [], 0
    for part, drawn in zip(chosen, draw_evenly(chosen, most, seed), strict=True):
        positions.append(start + np.searchsorted(part.index, drawn.index))
        start += len(part.index)
    return np.sort(np.concatenate(positions))


def _digest(chosen: Sequence[Chosen]) -> str:
    """Return a hash of cells and their labels."""
    return hash_json(
        [
            [part.cells.name, part.cells.fingerprints()[part.index].tolist(), part.y.tolist()]
            for part in chosen
        ]
    )


def _with_network(embedder: Embedder, model: CellModel, name: str, data: bytes) -> Embedder:
    """Return an embedder of a fine-tuned network, whose embeddings are kept apart in the store."""
    tuned = copy.copy(embedder)
    digest = hashlib.sha256(data).hexdigest()
    tuned.loaded = replace(embedder.loaded, model=model, tuned=f"{name} {digest}")
    tuned.files = {}
    return tuned


def _announce(
    tuner: Tuner, trained: Sequence[Chosen], source: str, held_out: Sequence[Chosen], *, quiet: bool
) -> None:
    n_trained = sum(p.numel() for p in tuner.trainee.trainable().values())
    processes = tuner.processes
    several = f" in {processes.count} processes" if processes.count > 1 else ""
    say(
        f"{tuner.trainee.name}: {n_trained:,} parameters train on "
        f"{sum(len(part.index) for part in trained):,} cells on {processes.device}{several} in "
        f"{tuner.precision}; {tuner.n_steps:,} steps of {tuner.plan.step_cells:,} cells",
        quiet=quiet,
    )
    if held_out:
        groups = {group for part in held_out for group in part.groups}
        say(
            f"{len(groups):,} groups ({source}) tell when to stop",
            quiet=quiet,
        )


def _notices(
    loaded: LoadedModel, lora: LoraDefaults | None, source: str, chosen: Sequence[Chosen]
) -> list[str]:
    notices = []
    if source == "none":
        notices.append(
            "nothing told when to stop: the network is that of the last step (too few groups to "
            "hold any out, or --patience 0)"
        )
    if lora is None and loaded.weights.source not in ("random", "none"):
        licence = loaded.weights.licence or "unknown"
        notices.append(
            f"this predictor holds a network made from the weights of {loaded.name}: their licence "
            f"({licence}) holds for it"
        )
    return notices

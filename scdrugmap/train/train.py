"""Train a predictor on the training cells of one fold.

A strategy is one module that gives a :class:`~scdrugmap.train.scores.Scorer`; what it was trained
on, its threshold, its self-test and the bundle around it are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from scdrugmap import __version__
from scdrugmap.errors import UsageError
from scdrugmap.progress import say
from scdrugmap.specs import Values
from scdrugmap.text.contract import Asking
from scdrugmap.text.load import LoadedText
from scdrugmap.text.scorer import Prompting
from scdrugmap.train import selftest
from scdrugmap.train.calibration import NOT_CALIBRATED, use_validation
from scdrugmap.train.gather import (
    Chosen,
    check_classes,
    choose_cells,
    draw_evenly,
    one_kind_of_values,
)
from scdrugmap.train.predictor import (
    SELF_TEST,
    TRAINING_CELLS,
    Predictor,
    short_fingerprints,
)
from scdrugmap.train.record import (
    DatasetInfo,
    GenesInfo,
    PredictorInfo,
    SplitInfo,
    TrainingInfo,
    TuningInfo,
)
from scdrugmap.train.settings import MODEL_STRATEGIES, FineTuning
from scdrugmap.train.strategies import fit_by_estimator, fit_by_head, fit_by_tuning

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.data.cells import Cells
    from scdrugmap.evaluation.protocols import Protocol
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.store import Store
    from scdrugmap.train.checkpoint import Checkpoint
    from scdrugmap.train.frozen import EmbeddingRows
    from scdrugmap.train.heads import HeadName

MAX_CELLS = 50_000
"""Most training cells of estimators and of the logistic head, which hold them as one matrix."""

LARGEST_SEED = 2**32 - 1
"""What the generators of all libraries take."""

PROMPT = "prompt"
"""Strategy of text models: they are asked, nothing is fitted."""

FACTS = ("drug", "cancer_type", "tissue", "label_basis")
"""Columns of obs whose values a predictor remembers."""

_MOST_FACTS = 20


def train_predictor(
    sources: Sequence[Cells],
    splits: pd.DataFrame,
    *,
    fold: int,
    seed: int = 0,
    estimator: str | None = None,
    model: LoadedModel | LoadedText | None = None,
    strategy: str = "frozen",
    shots: int = 0,
    tuning: FineTuning | None = None,
    checkpoint: Checkpoint | None = None,
    head: HeadName | None = None,
    settings: Mapping[str, str] | None = None,
    embeddings: Sequence[Path] = (),
    held: EmbeddingRows | None = None,
    store: Store | None = None,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    token_budget: int | None = None,
    sample: str | None = None,
    dataset: str | None = None,
    min_genes: int | None = None,
    max_cells: int = MAX_CELLS,
    quiet: bool = False,
) -> Predictor:
    """Train on the cells of role ``train`` of one fold; no other cell is looked at.

    Cells of role ``validation``, if there are any, decide when fine-tuning stops, and temperature,
    threshold and conformal sets, and nothing else.

    Parameters
    ----------
    sources : sequence of Cells
        The files that the split was made of.
    splits : pandas.DataFrame
        ``splits.tsv``.
    fold : int
    seed : int
    estimator : str, optional
        Name of an estimator; or
    model : LoadedModel, optional
        a model, whose embeddings are classified.
    strategy : str
        For models: ``frozen`` (a head on embeddings), ``lora`` or ``full`` (the network is
        trained too; the model that is given stays as it is); ``prompt`` for text models.
    shots : int
        For ``prompt``: example cells of each label; 0: no label is looked at.
    tuning : FineTuning, optional
        How ``lora`` and ``full`` train; default: as the record's defaults are.
    checkpoint : Checkpoint, optional
        Where their unfinished state is kept, and taken from.
    head : {"logistic", "mlp"}, optional
        Default: logistic regression; the paper's network for splits of the paper's family.
    settings : mapping of str to str
        Options of the estimator.
    embeddings : sequence of Path
        Files of ``scdrugmap embed`` to take instead of computing.
    held : EmbeddingRows, optional
        Embeddings of the model as it is, of all cells of the files, for ``frozen``.
    store : Store, optional
        Where embeddings are kept; None: the default one.
    device, precision, token_budget
        As for embedding.
    sample : str, optional
        Column of obs with the sample, for models whose cells see each other.
    dataset : str, optional
        Column of obs with the dataset, if the split was made with one.
    min_genes : int, optional
        Fewest genes that the model must know.
    max_cells : int
        Most training cells of an estimator or the logistic head, drawn evenly over groups.
    quiet : bool

    Returns
    -------
    Predictor

    Raises
    ------
    UsageError
        Neither or both of `estimator` and `model`; no such fold; other files than the split's; a
        strategy that the split's protocol rules out.
    DataError
        One label only, no shared gene, values that cannot be used, or embeddings of another model.
    """
    if (estimator is None) == (model is None):
        raise UsageError(
            "name either an estimator or a model", hint="--estimator NAME or --model NAME"
        )
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {seed} is not between 0 and {LARGEST_SEED}")
    if shots and strategy != PROMPT:
        raise UsageError("examples are for --strategy prompt", hint="leave --shots out")
    if strategy == PROMPT:
        if model is None or embeddings or head or tuning or checkpoint:
            raise UsageError(
                "--strategy prompt asks a text model: it takes no --estimator, --embeddings, "
                "--head or settings of fine-tuning"
            )
        from scdrugmap.text.fit import fit_prompt

        return fit_prompt(
            model if isinstance(model, LoadedText) else LoadedText.of(model),
            sources,
            splits,
            fold=fold,
            shots=shots,
            seed=seed,
            prompting=Prompting(
                Asking(device=device, precision=precision, token_budget=token_budget, quiet=quiet)
            ),
            dataset=dataset,
            sample=sample,
            quiet=quiet,
        )
    if isinstance(model, LoadedText):
        raise UsageError(
            f"{model.name} answers questions; with --strategy {strategy} a model must embed",
            hint="use --strategy prompt",
        )
    _check_protocol(splits, strategy)
    chosen = choose_cells(sources, splits, fold, "train", dataset=dataset)
    check_classes(chosen, fold)
    validation = choose_cells(sources, splits, fold, "validation", dataset=dataset)
    values = cast("Values", one_kind_of_values([part.cells for part in chosen]))
    n_all = sum(len(part.index) for part in chosen)
    if estimator is not None:
        if embeddings or head or tuning or checkpoint:
            raise UsageError(
                "--embeddings, --head and settings of fine-tuning are for models, not for estimators"
            )
        drawn = draw_evenly(chosen, max_cells, seed)
        fitted = fit_by_estimator(estimator, settings or {}, drawn, seed, values)
        cap: int | None = max_cells
    else:
        assert model is not None
        _check_strategy(strategy, tuning, embeddings)
        head = head or default_head(splits)
        how: dict[str, Any] = {
            "store": store,
            "device": device,
            "precision": precision,
            "token_budget": token_budget,
            "sample": sample,
            "min_genes": min_genes,
            "quiet": quiet,
        }
        cap = max_cells if head == "logistic" and strategy == "frozen" else None
        drawn = draw_evenly(chosen, max_cells, seed) if cap else list(chosen)
        if strategy == "frozen":
            fitted = fit_by_head(
                model, head, drawn, seed, values, embeddings=embeddings, held=held, **how
            )
        else:
            tuning = tuning or FineTuning()
            fitted = fit_by_tuning(
                model, strategy, head, drawn, validation, tuning, seed, checkpoint=checkpoint, **how
            )
    n_drawn = sum(len(part.index) for part in drawn)
    n_used = sum(len(part.index) for part in fitted.used)
    n_left_out = n_drawn - n_used
    training = TrainingInfo(
        datasets=tuple(
            DatasetInfo(
                name=part.cells.name,
                n_cells=len(part.index),
                values_location=part.cells.matrix.location,
            )
            for part in fitted.used
        ),
        n_cells=n_used,
        n_sensitive=int(sum(part.y.sum() for part in fitted.used)),
        n_groups=len({group for part in fitted.used for group in part.groups}),
        n_empty=n_left_out if estimator is not None else 0,
        n_unknown=n_left_out if estimator is None else 0,
        n_beyond_cap=n_all - n_drawn,
        max_cells=cap,
    )
    validated = use_validation(
        fitted.scorer,
        validation,
        {group for part in fitted.used for group in part.groups},
        stopped=_stopped_by_validation(fitted.about.get("tuning")),
        quiet=quiet,
    )
    test_genes = tuple(map(str, fitted.test_genes))
    test_values = selftest.synthetic_values(len(test_genes), values)
    trial = selftest.try_cells(fitted.scorer, test_genes, test_values)
    notices = [*_notices(training), *fitted.about.pop("notices"), *validated.notices]
    info = PredictorInfo(
        scdrugmap=__version__,
        seed=seed,
        values=values,
        sample_column=sample or "",
        min_genes=min_genes,
        genes=GenesInfo(
            n_genes=len(fitted.genes),
            digest=fitted.genes.digest(),
            n_needed=fitted.needed,
            counts={part.cells.name: dict(part.cells.mapping.counts) for part in fitted.used},
        ),
        training=training,
        split=SplitInfo(split_id=str(splits["split_id"].iloc[0]), fold=fold),
        threshold=validated.threshold,
        calibration=validated.calibration,
        conformal=validated.conformal,
        self_test=selftest.describe(trial, test_genes),
        notices=tuple(notices),
        **facts_of_cells(fitted.used),
        **fitted.about,
    )
    for notice in notices:
        say(f"Notice: {notice}", quiet=quiet)
    if validated.calibration is None:
        say(f"Notice: {NOT_CALIBRATED}", quiet=quiet)
    fingerprints = np.concatenate([part.cells.fingerprints()[part.index] for part in fitted.used])
    reference = {
        TRAINING_CELLS: np.sort(short_fingerprints(fingerprints)),
        SELF_TEST: test_values,
        **fitted.reference,
    }
    return Predictor(info, fitted.scorer.files(), reference, fitted.scorer)


def _stopped_by_validation(tuning: TuningInfo | None) -> bool:
    return tuning is not None and tuning.stopped_by == "validation cells"


def _check_strategy(strategy: str, tuning: FineTuning | None, embeddings: Sequence[Path]) -> None:
    if strategy not in MODEL_STRATEGIES:
        raise UsageError(
            f"there is no strategy {strategy!r}", hint=f"use {', '.join(MODEL_STRATEGIES)}"
        )
    if strategy == "frozen" and tuning is not None:
        raise UsageError(
            "settings of fine-tuning do nothing with --strategy frozen",
            hint="use --strategy lora or full",
        )
    if strategy == "full" and tuning is not None and tuning.names_adapters:
        raise UsageError(
            "--strategy full has no adapters, so targets, r, alpha and dropout do nothing",
            hint="use --strategy lora",
        )
    if strategy != "frozen" and embeddings:
        raise UsageError(
            f"--embeddings are of the model as it is; --strategy {strategy} changes it",
            hint="leave --embeddings out, or use --strategy frozen",
        )


def _check_protocol(splits: pd.DataFrame, strategy: str) -> None:
    """Refuse to train what would answer another question than the split's."""
    protocol = _protocol(splits)
    if protocol is None:
        return
    if not protocol.trains:
        raise UsageError(
            f"protocol {protocol.name} has no training cell: it asks what is known without labels",
            hint="ask a text model: scdrugmap predict --model NAME, or --strategy prompt",
        )
    if protocol.frozen and strategy in ("lora", "full"):
        raise UsageError(
            f"protocol {protocol.name} leaves the encoder as it is; --strategy {strategy} changes it",
            hint="use --strategy frozen, or a split of protocol loso",
        )


def _protocol(splits: pd.DataFrame) -> Protocol | None:
    from scdrugmap.evaluation.protocols import PROTOCOLS
    from scdrugmap.evaluation.tables import protocol_of

    return PROTOCOLS.get(protocol_of(splits))


def default_head(splits: pd.DataFrame) -> HeadName:
    """Return the head of a split's protocol family: the paper's network under ``paper``."""
    protocol = _protocol(splits)
    return "mlp" if protocol is not None and protocol.family == "paper" else "logistic"


def _notices(training: TrainingInfo) -> list[str]:
    notices = []
    if training.n_empty:
        notices.append(f"{training.n_empty:,} training cells without counts were left out")
    if training.n_unknown:
        notices.append(f"{training.n_unknown:,} training cells without a known gene were left out")
    if training.n_beyond_cap:
        notices.append(
            f"{training.n_cells:,} training cells were drawn evenly over groups; "
            f"{training.n_beyond_cap:,} were left out to bound the memory (--max-cells)"
        )
    return notices


def facts_of_cells(used: Sequence[Chosen]) -> dict[str, tuple[str, ...]]:
    """Return the values of drug, cancer type and so on among the training cells."""
    facts = {}
    for column in FACTS:
        values: set[str] = set()
        for part in used:
            if column in part.cells.obs.columns:
                seen = part.cells.obs[column].iloc[part.index].dropna().unique()
                values |= {str(value).strip() for value in seen}
        facts[column] = tuple(sorted(values - {""})[:_MOST_FACTS])
    return facts

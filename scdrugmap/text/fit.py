"""Make predictors of the strategy ``prompt``: zero-shot without any label, or few-shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scdrugmap import __version__
from scdrugmap.progress import say
from scdrugmap.registry import get_registry
from scdrugmap.text.examples import KeptExample, choose_examples
from scdrugmap.text.load import load_text_model
from scdrugmap.text.scorer import Prompting, PromptScorer
from scdrugmap.train import selftest
from scdrugmap.train.calibration import Validated, use_validation
from scdrugmap.train.gather import Chosen, check_classes, choose_cells, one_kind_of_values
from scdrugmap.train.record import (
    DatasetInfo,
    GenesInfo,
    PluginInfo,
    PredictorInfo,
    PromptInfo,
    SelfTestInfo,
    SplitInfo,
    Threshold,
    TrainingInfo,
    WeightsInfo,
)

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.data.cells import Cells
    from scdrugmap.specs import Values
    from scdrugmap.text.load import LoadedText
    from scdrugmap.train.predictor import Predictor

NO_SPLIT = "none"
"""``split_id`` of a predictor that was made without any split."""

_TEST_GENES = 512


def fit_prompt(
    loaded: LoadedText,
    sources: Sequence[Cells],
    splits: pd.DataFrame,
    *,
    fold: int,
    shots: int = 0,
    seed: int = 0,
    prompting: Prompting | None = None,
    dataset: str | None = None,
    sample: str | None = None,
    quiet: bool = False,
) -> Predictor:
    """Make a predictor that asks a text model; nothing is sent to a server.

    Without `shots` no label is looked at: not of training cells, not of validation cells. With
    them, validation cells choose threshold and temperature of models on this machine; models
    behind a server keep 0.5, since every question costs.

    Parameters
    ----------
    loaded : LoadedText
    sources : sequence of Cells
        The files that the split was made of.
    splits : pandas.DataFrame
        ``splits.tsv``.
    fold : int
    shots : int
        Example cells of each label, from training groups.
    seed : int
        Of the examples and their order.
    prompting : Prompting, optional
    dataset, sample : str, optional
        Columns of obs, as given to split.
    quiet : bool

    Raises
    ------
    UsageError
        No such fold; other files than the split's.
    DataError
        Too few training cells of a label.
    """
    from scdrugmap.train.predictor import SELF_TEST, TRAINING_CELLS, Predictor, short_fingerprints
    from scdrugmap.train.train import facts_of_cells

    prompting = prompting or Prompting()
    values = cast("Values", one_kind_of_values(sources))
    chosen = choose_cells(sources, splits, fold, "train", dataset=dataset)
    examples: tuple[KeptExample, ...] = ()
    used: list[Chosen] = []
    if shots:
        check_classes(chosen, fold)
        examples, used = choose_examples(
            chosen, splits, loaded.model, fold=fold, shots=shots, seed=seed
        )
    scorer = PromptScorer(loaded, examples, prompting)
    validated = Validated(Threshold(), None, None, ())
    if shots and not loaded.remote:
        validation = choose_cells(sources, splits, fold, "validation", dataset=dataset)
        groups = {group for part in used for group in part.groups}
        validated = use_validation(scorer, validation, groups, quiet=quiet)
    genes = sources[0].genes
    mapped = genes.ensembl[genes.ensembl != ""]
    test_genes = tuple(map(str, selftest.spread(mapped, _TEST_GENES)))
    test_values = selftest.synthetic_values(len(test_genes), values)
    trial = selftest.try_cells(scorer, test_genes, test_values)
    notices = (*loaded.model.notices, *validated.notices)
    info = _info(
        scorer,
        seed=seed,
        values=values,
        sample_column=sample or "",
        genes=GenesInfo(n_genes=len(genes), digest=genes.digest(), n_needed=0),
        training=TrainingInfo(
            datasets=tuple(
                DatasetInfo(
                    name=part.cells.name,
                    n_cells=len(part.index),
                    values_location=part.cells.matrix.location,
                )
                for part in used
            ),
            n_cells=len(examples),
            n_sensitive=int(sum(part.y.sum() for part in used)),
            n_groups=len({group for part in used for group in part.groups}),
        ),
        split=SplitInfo(split_id=str(splits["split_id"].iloc[0]), fold=fold),
        threshold=validated.threshold,
        calibration=validated.calibration,
        conformal=validated.conformal,
        self_test=selftest.describe(trial, test_genes),
        notices=notices,
        **facts_of_cells(used),
    )
    of_weights = () if loaded.base is None else loaded.base.weights.notices
    for notice in (*of_weights, *notices):
        say(f"Notice: {notice}", quiet=quiet)
    fingerprints = np.array([example.fingerprint for example in examples], object)
    reference: dict[str, np.ndarray] = {
        TRAINING_CELLS: np.sort(short_fingerprints(fingerprints)),
        SELF_TEST: test_values,
    }
    return Predictor(info, scorer.files(), reference, scorer)


def ask_only(loaded: LoadedText, prompting: Prompting, *, values: str = "counts") -> Predictor:
    """Return a zero-shot predictor in memory: no file, no split, no label.

    Parameters
    ----------
    loaded : LoadedText
    prompting : Prompting
    values : {"counts", "lognorm"}
        Read where a file holds both; ranks are the same.
    """
    from scdrugmap.train.predictor import SELF_TEST, TRAINING_CELLS, Predictor

    scorer = PromptScorer(loaded, (), prompting)
    info = _info(
        scorer,
        seed=0,
        values=values,
        genes=GenesInfo(n_genes=0, digest="", n_needed=0),
        training=TrainingInfo(datasets=(), n_cells=0, n_sensitive=0, n_groups=0),
        split=SplitInfo(split_id=NO_SPLIT, fold=0),
        self_test=SelfTestInfo(genes=(), tokens=(), p_sensitive=()),
        notices=loaded.model.notices,
    )
    reference: dict[str, np.ndarray] = {
        TRAINING_CELLS: np.zeros(0, np.uint64),
        SELF_TEST: np.zeros((0, 0), np.float32),
    }
    return Predictor(info, scorer.files(), reference, scorer)


def ask_model(
    name: str,
    *,
    prompting: Prompting | None = None,
    settings: Mapping[str, str] | None = None,
    weights: str | Path | None = None,
) -> Predictor:
    """Return a predictor that asks a text model, without any training; nothing is sent yet.

    Parameters
    ----------
    name : str
        A model with the capability CLASSIFY.
    prompting : Prompting, optional
        How it may be asked; default: nothing leaves this machine, no answer is kept.
    settings : mapping of str to str, optional
        Options of the model.
    weights : str or Path, optional
        For models on this machine.
    """
    loaded = load_text_model(name, settings=settings, weights=weights)
    return ask_only(loaded, prompting or Prompting())


def _info(scorer: PromptScorer, **fields: Any) -> PredictorInfo:
    """Return ``predictor.json``, with what is known of the model."""
    loaded = scorer.loaded
    spec, model = loaded.spec, loaded.model
    plugin = get_registry().provided("model", spec.name).plugin
    weights = None
    if loaded.base is not None:
        record = loaded.base.weights
        weights = WeightsInfo(
            source=record.source,
            digest=record.digest,
            label=record.label,
            licence=record.licence,
            commercial_use=record.commercial_use,
            randomize=record.randomize,
            homepage=spec.homepage,
            notice=record.notice,
        )
    return PredictorInfo(
        scdrugmap=__version__,
        name=spec.name,
        title=spec.title,
        strategy="prompt",
        plugin=PluginInfo(
            name=plugin.name, distribution=plugin.distribution, version=plugin.version
        ),
        contract=spec.contract,
        numerics=spec.numerics,
        options=loaded.options.model_dump(mode="json"),
        embedding_seed=None if loaded.base is None else loaded.base.seed,
        precision=scorer.prompting.asking.precision,
        weights=weights,
        prompt=PromptInfo(
            template=model.template.name,
            template_digest=model.template.digest,
            n_genes=model.n_genes,
            fields=model.fields,
            n_examples=len(scorer.examples),
            remote=loaded.remote,
        ),
        **fields,
    )

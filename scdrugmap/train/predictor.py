"""A predictor: one zip file with all that was learnt, and no cell but few-shot examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from pydantic import ValidationError

from scdrugmap.errors import DataError, PluginError, UsageError
from scdrugmap.files import atomic_path, check_output
from scdrugmap.plain import ascii_escapes
from scdrugmap.progress import say
from scdrugmap.registry import get_registry
from scdrugmap.specs import ModelSpec, Options
from scdrugmap.text.scorer import Prompting, PromptScorer
from scdrugmap.train import selftest
from scdrugmap.train.archive import Archive, write_archive
from scdrugmap.train.card import model_card
from scdrugmap.train.domain import Domain
from scdrugmap.train.mismatch import (
    Mismatches,
    base_weights,
    check_plugin,
    check_weights,
    installed,
)
from scdrugmap.train.record import PredictorInfo, parse_info
from scdrugmap.train.tensors import dump_tensors, load_tensors

if TYPE_CHECKING:
    from scdrugmap.model.load import LoadedModel
    from scdrugmap.run.store import Store
    from scdrugmap.train.frozen import FrozenScorer
    from scdrugmap.train.scores import Scorer

INFO_FILE, CARD_FILE, REFERENCE_FILE = "predictor.json", "README.md", "reference.safetensors"
LEARNT_FILES = {
    "estimator": ("estimator.skops",),
    "frozen": ("head.safetensors",),
    "lora": ("head.safetensors", "adapters.safetensors"),
    "full": ("head.safetensors", "network.safetensors"),
    "prompt": ("examples.json",),
}
"""What is in the zip file, beside info, card and reference, by strategy."""

TRAINING_CELLS, SELF_TEST, EMBEDDING_MEAN = "training_cells", "self_test", "embedding_mean"

MOST_BYTES = 1 << 29
_MOST_INFO_BYTES = 1 << 22


class Predictor:
    """A trained predictor.

    Attributes
    ----------
    info : PredictorInfo
        ``predictor.json``.
    files : dict of str to bytes
        What was learnt: those of :data:`LEARNT_FILES`.
    reference : dict of str to array
        ``training_cells`` ((n,) uint64, sorted: first half of each fingerprint), ``self_test``
        ((8, G) float32) and, for embeddings, ``embedding_mean`` ((D,) float32).
    mismatches : tuple of str
        What is other here than in training and was allowed to be, once :meth:`scorer` was called.
    """

    def __init__(
        self,
        info: PredictorInfo,
        files: dict[str, bytes],
        reference: dict[str, np.ndarray],
        scorer: Scorer | None = None,
    ) -> None:
        self.info, self.files, self.reference = info, files, reference
        self._scorer = scorer
        self.mismatches: tuple[str, ...] = ()

    def __repr__(self) -> str:
        info = self.info
        return (
            f"<Predictor {info.name} ({info.strategy}), fold {info.split.fold}, seed {info.seed}, "
            f"{info.training.n_cells:,} training cells>"
        )

    def save(self, target: Path, *, overwrite: bool = False) -> None:
        """Write the zip file, whole or not at all.

        The same training gives the same bytes, but for the speed that fine-tuning records.

        Raises
        ------
        UsageError
            The file exists, without `overwrite`.
        ResourceError
            It cannot be written.
        """
        target = Path(target)
        check_output(target, overwrite=overwrite)
        data = write_archive(
            {
                INFO_FILE: (ascii_escapes(self.info.model_dump_json(indent=1)) + "\n").encode(),
                CARD_FILE: model_card(self.info).encode(),
                REFERENCE_FILE: dump_tensors(self.reference),
                **self.files,
            }
        )
        with atomic_path(target, n_bytes=len(data)) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, source: Path) -> Predictor:
        """Read a zip file; nothing in it is run.

        Raises
        ------
        UsageError
            There is no such file.
        DataError
            It is no predictor, damaged, too large, or holds files that do not belong there.
        """
        source = Path(source)
        if not source.is_file():
            raise UsageError(
                f"{source} does not exist" if not source.exists() else f"{source} is no file",
                hint="a predictor is made by `scdrugmap train`",
            )
        size = source.stat().st_size
        if size > MOST_BYTES:
            raise DataError(f"{source} has {size:,} bytes; a predictor has at most {MOST_BYTES:,}")
        known = {name for names in LEARNT_FILES.values() for name in names}
        allowed = (INFO_FILE, CARD_FILE, REFERENCE_FILE, *known)
        archive = Archive(source.read_bytes(), str(source), most_bytes=MOST_BYTES, allowed=allowed)
        info = parse_info(archive.read(INFO_FILE, most_bytes=_MOST_INFO_BYTES), str(source))
        _check_members(archive.names & known, info, source)
        learnt = {name: archive.read(name) for name in LEARNT_FILES[info.strategy]}
        where = f"{source}, {REFERENCE_FILE}"
        reference = load_tensors(archive.read(REFERENCE_FILE), where)
        _check_reference(reference, info, where)
        return cls(info, learnt, reference)

    def is_training_cell(self, hashes: np.ndarray) -> np.ndarray:
        """Tell which cells it was trained on ((n,) bool), from their hashes ((n, 2) uint64)."""
        return np.isin(hashes[:, 0], self.reference[TRAINING_CELLS])

    def domain(self) -> Domain | None:
        """Return where its training embeddings lie; None for estimators."""
        if self.info.reference is None:
            return None
        quantiles = np.array(self.info.reference.distance_quantiles)
        return Domain(self.reference[EMBEDDING_MEAN], quantiles)

    def scorer(
        self,
        *,
        weights: str | Path | None = None,
        model: LoadedModel | None = None,
        store: Store | None = None,
        device: str = "auto",
        precision: str | None = None,
        token_budget: int | None = None,
        min_genes: int | None = None,
        sample: str | None = None,
        prompting: Prompting | None = None,
        allow_mismatch: bool = False,
        quiet: bool = False,
    ) -> Scorer:
        """Make it ready to predict, and run the self-test; later calls return the same object.

        Parameters
        ----------
        weights : str or Path, optional
            Folder of the model's weights; default: where weights are kept. Random weights are
            made again from their seed.
        model : LoadedModel, optional
            The model, if it is already there.
        store, device, token_budget, min_genes
            As for embedding.
        precision : str, optional
            Default: that of the training.
        sample : str, optional
            Column of obs with the sample, for models whose cells see each other; default: the one
            named in training.
        prompting : Prompting, optional
            How a text model may be asked, and what it is told.
        allow_mismatch : bool
            Go on with another version of the model, other weights, or a failed self-test; each is
            said aloud and kept in :attr:`mismatches`.
        quiet : bool

        Raises
        ------
        PluginError
            The model or estimator is missing, of another version, or fails the self-test.
        WeightsError
            The weights are missing or are not those of the training.
        """
        if prompting is not None and isinstance(self._scorer, PromptScorer):
            self._scorer.prompting = prompting
        if self._scorer is not None and self.info.head is not None:
            scorer_of_embeddings = cast("FrozenScorer", self._scorer)
            scorer_of_embeddings.embedder.sample = sample or self.info.sample_column or None
        if self._scorer is None:
            mismatches = Mismatches(allow_mismatch)
            notices = self._check_plugin(mismatches)
            if self.info.strategy == "estimator":
                scorer = self._restore_estimator()
            elif self.info.strategy == "prompt":
                scorer = self._restore_prompt(weights, prompting, mismatches)
            else:
                loaded = model or self._load_model(weights)
                check_weights(self.info.weights, loaded.weights, mismatches)
                scorer = self._restore_model(
                    loaded,
                    store=store,
                    device=device,
                    precision=precision or self.info.precision,
                    token_budget=token_budget,
                    min_genes=self.info.min_genes if min_genes is None else min_genes,
                    sample=sample or self.info.sample_column or None,
                )
            difference = 0.0
            try:
                difference = self.self_test(scorer)
            except PluginError as err:
                mismatches.meet(err)
            for notice in notices:
                say(f"Notice: {notice}", quiet=quiet)
            for mismatch in mismatches.found:
                say(f"WARNING: {mismatch}: do not trust these predictions")  # even if quiet
            self.mismatches = tuple(mismatches.found)
            if difference > selftest.WARN_ABOVE:
                say(
                    f"Warning: p_sensitive of the self-test differs by {difference:.2g} from when "
                    "the predictor was trained (another version of a library?)",
                    quiet=quiet,
                )
            self._scorer = scorer
        return self._scorer

    def self_test(self, scorer: Scorer | None = None) -> float:
        """Predict the 8 synthetic cells again; return the largest difference of a probability.

        Raises
        ------
        PluginError
            The tokens differ, or a probability by more than 1e-3.
        """
        info = self.info
        trial = selftest.try_cells(
            scorer or self.scorer(), info.self_test.genes, self.reference[SELF_TEST]
        )
        return selftest.compare(trial, info.self_test, f"this {info.name} predictor")

    def _check_plugin(self, mismatches: Mismatches) -> list[str]:
        registry, info = get_registry(), self.info
        installed(info)
        if info.strategy == "estimator":
            return check_plugin(info, registry.estimator(info.name), mismatches)
        if info.strategy == "prompt":
            from scdrugmap.text.load import text_spec

            return check_plugin(info, text_spec(info.name), mismatches)
        return check_plugin(info, registry.model(info.name), mismatches)

    def _restore_estimator(self) -> Scorer:
        from scdrugmap.train.estimators import STATE_FILE, EstimatorScorer

        spec = get_registry().estimator(self.info.name)
        options = _options(spec.options, self.info)
        return EstimatorScorer.restored(
            spec, options, self.info.seed, self.info.values, self.files[STATE_FILE]
        )

    def _restore_prompt(
        self, weights: str | Path | None, prompting: Prompting | None, mismatches: Mismatches
    ) -> Scorer:
        from scdrugmap.text.examples import EXAMPLES_FILE, read_examples
        from scdrugmap.text.load import LoadedText, load_text_model, text_spec

        spec = text_spec(self.info.name)
        if isinstance(spec, ModelSpec):
            base = self._load_model(weights)
            check_weights(self.info.weights, base.weights, mismatches)
            loaded = LoadedText.of(base)
        else:
            loaded = load_text_model(
                spec.name, options=_options(spec.options, self.info), weights=weights
            )
        examples = read_examples(self.files[EXAMPLES_FILE])
        return PromptScorer(loaded, examples, prompting or Prompting())

    def _load_model(self, weights: str | Path | None) -> LoadedModel:
        from scdrugmap.model.load import load_model
        from scdrugmap.specs import ModelOptions

        info = self.info
        spec = get_registry().model(info.name)
        options = _options(spec.options, info)
        assert isinstance(options, ModelOptions)
        made_at_random = info.weights is not None and info.weights.source == "random"
        if made_at_random and weights not in (None, "random"):
            raise UsageError(
                f"this predictor was trained on random weights of {info.name}",
                hint="leave --weights out: they are made again from their seed",
            )
        if made_at_random:
            weights = "random"
        elif weights is None and info.weights is not None:
            weights = base_weights(spec, info.weights, variant=options.variant)
        return load_model(
            spec,
            options=options,
            weights=weights,
            randomize=info.weights.randomize if info.weights else None,
            seed=info.embedding_seed or 0,
        )

    def _restore_model(
        self,
        loaded: LoadedModel,
        *,
        store: Store | None,
        device: str,
        precision: str,
        token_budget: int | None,
        min_genes: int | None,
        sample: str | None,
    ) -> Scorer:
        from scdrugmap.train.frozen import HEAD_FILE, Embedder, FrozenScorer
        from scdrugmap.train.tuned import restore_tuned

        embedder = Embedder(
            loaded,
            store=store,
            device=device,
            precision=precision,
            token_budget=token_budget,
            sample=sample,
            min_genes=min_genes,
        )
        if self.info.head is None or self.info.dim is None:
            raise DataError("predictor.json is damaged: head and dim are missing")
        head, dim = self.info.head, self.info.dim
        if self.info.tuning is None:
            scorer = FrozenScorer.restored(embedder, head, dim, self.files[HEAD_FILE])
        else:
            scorer = restore_tuned(embedder, self.info.tuning, head, dim, self.files)
        scorer.domain = self.domain()
        return scorer


def _check_members(found: frozenset[str], info: PredictorInfo, source: Path) -> None:
    """Raise DataError unless what was learnt is there, and nothing else."""
    wanted = frozenset(LEARNT_FILES[info.strategy])
    if missing := sorted(wanted - found):
        raise DataError(f"{source} is damaged: {missing[0]} is missing")
    if strange := sorted(found - wanted):
        raise DataError(f"{source} is damaged: {strange[0]} is not of strategy {info.strategy}")
    if (info.tuning is None) != (info.strategy in ("estimator", "frozen", "prompt")):
        raise DataError(f"{source} is damaged: predictor.json does not fit {info.strategy}")


def _check_reference(reference: dict[str, np.ndarray], info: PredictorInfo, where: str) -> None:
    """Raise DataError unless the arrays are those that ``predictor.json`` speaks of."""
    shapes = {
        TRAINING_CELLS: (np.dtype("uint64"), (info.training.n_cells,)),
        SELF_TEST: (
            np.dtype("float32"),
            (len(info.self_test.p_sensitive), len(info.self_test.genes)),
        ),
    }
    if info.reference is not None:
        shapes[EMBEDDING_MEAN] = (np.dtype("float32"), (info.dim or 0,))
    found = {name: (values.dtype, values.shape) for name, values in reference.items()}
    if found != shapes:
        raise DataError(f"{where} is damaged: it holds {found}, expected {shapes}")


def _options(options_class: type[Options], info: PredictorInfo) -> Options:
    try:
        return options_class.model_validate(info.options)
    except ValidationError as err:
        first = err.errors()[0]
        raise PluginError(
            f"the installed {info.name} does not know the predictor's options: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint=f"it was made with {info.plugin.distribution} {info.plugin.version}",
        ) from err


def short_fingerprints(fingerprints: np.ndarray) -> np.ndarray:
    """Turn fingerprints ((n,) str, 32 hexadecimal digits) into (n,) uint64: their first halves.

    Among 10^6 cells and 10^6 training cells a chance match has a probability of 5e-8.
    """
    return np.array([int(text[:16], 16) for text in fingerprints], np.uint64)

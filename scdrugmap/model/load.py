"""Make a model ready for work: options, weights, random control, and the genes of a file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin

from pydantic import ValidationError

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.registry import CORE_DISTRIBUTION, get_registry
from scdrugmap.specs import ModelOptions, ModelSpec, Options, load_object
from scdrugmap.weights import (
    NO_WEIGHTS,
    RANDOM_WEIGHTS,
    WeightsRecord,
    build_network,
    find_weights,
    open_weights,
)

if TYPE_CHECKING:
    from scdrugmap.data.genes import Genes
    from scdrugmap.modelkit.contract import CellModel, Coverage

_SHARE_OF_VOCABULARY = 0.25  # a small vocabulary needs fewer genes than `min_genes`


@dataclass
class LoadedModel:
    """A model with its options and weights."""

    spec: ModelSpec
    options: ModelOptions
    weights: WeightsRecord
    model: CellModel
    seed: int
    tuned: str = ""
    """What was learnt on top of the weights, by its hash; empty: nothing."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.spec.name

    def identity(self) -> dict[str, Any]:
        """Return everything of the model that decides its results, JSON-able.

        The seed is part of it only where it acts, so that other seeds find the same cache entries.
        """
        identity: dict[str, Any] = {
            "contract": self.spec.contract,
            "model": self.spec.name,
            "numerics": self.spec.numerics,
            "code": code_digest(self.spec.factory),
            "options": self.options.model_dump(mode="json"),
            "weights": self.weights.digest,
            "randomize": self.weights.randomize,
        }
        if self.weights.source == "random" or self.model.traits.stochastic:
            identity["seed"] = self.seed
        if self.tuned:
            identity["tuned"] = self.tuned
        return identity


def load_model(
    model: str | ModelSpec,
    *,
    settings: Mapping[str, str] | None = None,
    options: ModelOptions | None = None,
    weights: str | Path | None = None,
    randomize: int | None = None,
    seed: int = 0,
) -> LoadedModel:
    """Build a model.

    Parameters
    ----------
    model : str or ModelSpec
        Name of an installed model, or a spec.
    settings : mapping of str to str
        Options as ``--set`` gives them; they win over `options`.
    options : ModelOptions, optional
        Instance of the spec's options class.
    weights : str or Path, optional
        Folder, ``random``, or None: look where weights are kept.
    randomize : int, optional
        Keep sizes and vocabulary of the weights, draw all tensors anew with this seed.
    seed : int
        Of random tensors, and of what the model draws per cell.

    Raises
    ------
    UsageError
        An option, a variant or a folder that there is not; `randomize` without weights.
    PluginError
        There is no such model.
    WeightsError
        The weights are missing, damaged or of another model.
    """
    spec = get_registry().model(model) if isinstance(model, str) else model
    chosen = _options(spec, options, settings or {})
    folder = find_weights(spec, weights, variant=chosen.variant)
    if folder is None:
        if randomize is not None:
            raise UsageError(
                f"--randomize needs weights to take the sizes from; {spec.name} has none here",
                hint="use --weights random alone, or name a folder",
            )
        record = RANDOM_WEIGHTS if spec.needs_weights else NO_WEIGHTS
        untrained: CellModel = load_object(spec.factory)(chosen, None, seed)
        return LoadedModel(spec, chosen, record, untrained, seed)
    # A folder that was found by a name must hold what has that name; one that was given, may not.
    variant = chosen.variant if weights is not None else spec.variant(chosen.variant).name
    content, record = open_weights(spec, folder, variant=variant)
    built = build_network(spec, chosen, content, record.opened, seed)
    if randomize is not None:
        from scdrugmap.modelkit import randomize as draw_anew

        draw_anew(built.module, randomize)
        label = f"{record.label}, tensors drawn anew with seed {randomize} (untrained control)"
        record = replace(record, randomize=randomize, label=label)
    return LoadedModel(spec, chosen, record, built, seed)


def _options(
    spec: ModelSpec, options: ModelOptions | None, settings: Mapping[str, str]
) -> ModelOptions:
    if options is not None and not isinstance(options, spec.options):
        raise TypeError(f"options of {spec.name} are {spec.options}, not {type(options)}")
    start = options.model_dump() if options is not None else {}
    chosen = cast("ModelOptions", _validate(spec.options, settings, spec.name, start))
    names = [variant.name for variant in spec.variants]
    if chosen.variant and chosen.variant not in names:
        near = difflib.get_close_matches(chosen.variant, names, n=1)
        raise UsageError(
            f"{spec.name} has no variant {chosen.variant!r}",
            hint=(f"did you mean {near[0]}? " if near else "") + f"it has: {', '.join(names)}",
        )
    return chosen


def parse_options(options_class: type[Options], settings: Mapping[str, str], owner: str) -> Options:
    """Turn ``--set key=value`` into options.

    Parameters
    ----------
    options_class : type of Options
    settings : mapping of str to str
        Numbers, ``true``/``false``, ``none``, and comma-separated lists as text.
    owner : str
        Model or estimator, for messages.

    Raises
    ------
    UsageError
        An unknown key (with the nearest one), or a value out of range (with the range).
    """
    return _validate(options_class, settings, owner, {})


def _validate(
    options_class: type[Options], settings: Mapping[str, str], owner: str, start: dict[str, Any]
) -> Options:
    fields = options_class.model_fields
    for key in settings:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise UsageError(
                f"{owner} has no option {key!r}",
                hint=(f"did you mean {near[0]}? " if near else "")
                + (f"it has: {', '.join(fields)}" if fields else "it has none"),
            )
    given = {key: _value(text, fields[key].annotation) for key, text in settings.items()}
    try:
        return options_class.model_validate({**start, **given})
    except ValidationError as err:
        first = err.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        field = fields.get(key)
        raise UsageError(
            f"{owner}: {key + '=' if key else ''}{settings.get(key, '')}: {first['msg']}",
            hint=f"{key}: {field.description}" if field and field.description else "",
        ) from err


def _value(text: Any, annotation: Any) -> Any:
    """Bring the text of an option into a form that pydantic reads as the field's type."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    if not isinstance(text, str):
        return text
    if types.NoneType in kinds and text.lower() == "none":
        return None
    if any(get_origin(kind) in (list, tuple) for kind in (annotation, *kinds)):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def bind(
    loaded: LoadedModel, cells_genes: Genes, *, min_genes: int | None = None, where: str
) -> Coverage:
    """Show a file's genes to the tokenizer, and stop if the model knows too few of them.

    Parameters
    ----------
    loaded : LoadedModel
    cells_genes : Genes
    min_genes : int, optional
        Fewest known genes; default: that of the spec, or a quarter of the vocabulary if less.
    where : str
        The file, for the message.

    Raises
    ------
    DataError
        Too few genes are known; says how many, of how many, and how many are needed.
    """
    coverage = loaded.model.tokenizer.bind(cells_genes)
    needed = needed_genes(loaded.spec, coverage.n_vocabulary, min_genes)
    if coverage.n_matched >= max(needed, 1):
        return coverage
    other = "ensembl" if loaded.spec.gene_id == "symbol" else "symbol"
    if coverage.n_matched:
        hint = f"add --min-genes {coverage.n_matched} to go on with so few"
    else:
        hint = f"are the names genes of {' or '.join(loaded.spec.species)}? Try --gene-id {other}"
    examples = ", ".join(map(str, cells_genes.published[:3]))
    raise DataError(
        f"{where}: {coverage.n_matched:,} of {coverage.n_genes:,} genes match the "
        f"{loaded.spec.name} vocabulary (need {needed:,}); names look like {examples or 'nothing'}",
        hint=hint,
    )


def needed_genes(spec: ModelSpec, n_vocabulary: int, min_genes: int | None = None) -> int:
    """Return the fewest genes of a file that a model of `n_vocabulary` genes must know."""
    if min_genes is not None:
        return min_genes
    return min(spec.min_genes, int(_SHARE_OF_VOCABULARY * n_vocabulary))


@lru_cache(maxsize=64)
def code_digest(factory: str) -> str | None:
    """Return a hash of the code behind a factory where it can be edited, else None.

    Released code is known by its ``numerics`` number; of an editable installation every change
    of the plugin's files, or of ``scdrugmap.modelkit``, makes other cache entries.
    """
    package = factory.partition(":")[0].split(".")[0]
    files: list[Path] = []
    if package != CORE_DISTRIBUTION and _is_editable(package):
        files += _sources(package)
    if _is_editable(CORE_DISTRIBUTION):
        files += _sources("scdrugmap.modelkit")
        if package == CORE_DISTRIBUTION:
            files += _sources(factory.partition(":")[0])
    if not files:
        return None
    return hash_json([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def _sources(module: str) -> list[Path]:
    """Return the files of a module or package, sorted."""
    origin = Path(str(importlib.import_module(module).__file__))
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _is_editable(package: str) -> bool:
    """Whether the distribution of a top-level package was installed with ``pip install -e``."""
    names = _distributions().get(package, [])
    # Editable installs do not list the package; then the distribution is asked by its usual name.
    for name in {*names, package.replace("_", "-")}:
        try:
            text = metadata.distribution(name).read_text("direct_url.json") or ""
        except metadata.PackageNotFoundError:
            continue
        if '"editable": true' in text:
            return True
    return False


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of every top-level package: all are looked into, so only once."""
    return metadata.packages_distributions()

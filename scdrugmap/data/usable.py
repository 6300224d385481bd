"""Which installed models and estimators can work with the cells of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.errors import DataError, ScDrugMapError, WeightsError
from scdrugmap.registry import get_registry
from scdrugmap.specs import ModelSpec

if TYPE_CHECKING:
    from scdrugmap.data.cells import Cells

_TINY = "tiny"
_LARGEST_WEIGHTS = 2 << 30  # bytes that are worth reading for a look at the vocabulary

# What a plugin's own code may raise: its line says so, and the other lines are printed.
_PLUGIN_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Usable:
    """Whether a model or estimator can use a file.

    Parameters
    ----------
    name : str
    kind : str
        ``model`` or ``estimator``.
    usable : bool
    reason : str
        In words; also what has to be fetched first.
    n_known, n_vocabulary : int or None
        Genes of the file that the model knows, and genes it knows at all.
    weights : str
        ``found``, ``missing`` or ``not needed``.
    """

    name: str
    kind: str
    usable: bool
    reason: str
    n_known: int | None = None
    n_vocabulary: int | None = None
    weights: str = "not needed"


def usable_estimators(cells: Cells) -> Iterator[Usable]:
    """Tell of each estimator whether it takes the file's values."""
    for name, spec in sorted(get_registry().estimators.items()):
        takes = cells.matrix.values in spec.accepts
        reason = "" if takes else _wrong_values(spec.accepts, cells.matrix.values)
        yield Usable(name, "estimator", takes, reason)


def usable_models(cells: Cells, *, load_weights: bool = True) -> Iterator[Usable]:
    """Tell of each embedding model how many of the file's genes it knows.

    The vocabulary of a model is that of its weights where these are found; else it is asked with
    random weights, whose vocabulary is the packaged gene table.

    Parameters
    ----------
    cells : Cells
    load_weights : bool
        Read the weights that are found, unless they are very large.
    """
    for _, spec in sorted(get_registry().models.items()):
        if isinstance(spec, ModelSpec):
            yield ask_model(spec, cells, load_weights=load_weights)


def ask_model(spec: ModelSpec, cells: Cells, *, load_weights: bool = True) -> Usable:
    """Tell whether one model can use a file; a model that cannot be loaded says why."""
    from scdrugmap.model.load import bind, load_model
    from scdrugmap.weights import find_weights

    name = spec.name
    if cells.matrix.values not in spec.accepts:
        return Usable(name, "model", False, _wrong_values(spec.accepts, cells.matrix.values))
    weights = "not needed"
    folder = None
    if spec.needs_weights:
        try:
            folder = find_weights(spec)
        except WeightsError:
            weights = "missing"
        else:
            weights = "found"
    try:
        if folder is not None and load_weights and _size(folder) <= _LARGEST_WEIGHTS:
            loaded, asked = load_model(spec, weights=folder), "of the weights' vocabulary"
        else:
            tiny = any(variant.name == _TINY for variant in spec.variants)
            loaded = load_model(spec, settings={"variant": _TINY} if tiny else {}, weights="random")
            asked = "of the gene table" if spec.needs_weights else "of the genes it takes"
        coverage = bind(loaded, cells.genes, where=cells.where)
    except DataError as err:
        return Usable(name, "model", False, _without_file(err.message, cells), weights=weights)
    except ScDrugMapError as err:
        return Usable(name, "model", False, f"cannot be loaded: {err.message}", weights=weights)
    except _PLUGIN_FAULTS as err:
        words = " ".join(f"{type(err).__name__}: {err}".split())
        return Usable(name, "model", False, f"fault of the plugin: {words}", weights=weights)
    reason = f"knows {coverage.n_matched:,} of {coverage.n_genes:,} genes"
    if spec.needs_weights:
        reason += f" ({asked})"
    if weights == "missing":
        reason += f"; weights missing: scdrugmap weights show {name}"
    return Usable(name, "model", True, reason, coverage.n_matched, coverage.n_vocabulary, weights)


def _wrong_values(accepts: frozenset[str], values: str) -> str:
    return f"needs {' or '.join(sorted(accepts))}, the file holds {values}"


def _without_file(message: str, cells: Cells) -> str:
    return message.removeprefix(f"{cells.where}: ")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

"""What the verb ``embed`` does: a file and models in, one h5ad file of embeddings out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.hdf5_writing import writing_hdf5
from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path, check_output, together
from scdrugmap.model.embedding_file import EmbeddingWriter, check_target, to_runs
from scdrugmap.model.gene_embedding import embed_genes, require_genes, write_gene_embeddings
from scdrugmap.model.job import EmbeddingJob
from scdrugmap.model.load import load_model, parse_options
from scdrugmap.model.parts import Shard, names_digest
from scdrugmap.progress import say
from scdrugmap.registry import get_registry
from scdrugmap.run.provenance import provenance, without_times
from scdrugmap.run.store import Store
from scdrugmap.specs import Capability, ModelOptions
from scdrugmap.weights import find_weights

if TYPE_CHECKING:
    import h5py

    from scdrugmap.data.cells import Cells
    from scdrugmap.model.load import LoadedModel

EMPTY = ("nan", "error", "drop")
_MOST_LISTED = 5


@dataclass(frozen=True)
class ModelRequest:
    """A model as a command names it; loaded when its turn comes."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    randomize: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise now what loading would raise after hours of other models' work."""
        spec = get_registry().model(self.name)
        spec.require(Capability.EMBED)
        options = parse_options(spec.options, self.settings, self.name)
        assert isinstance(options, ModelOptions)
        find_weights(spec, self.weights, variant=options.variant)

    def load(self) -> LoadedModel:
        """Build the model."""
        return load_model(
            self.name,
            settings=self.settings,
            weights=self.weights,
            randomize=self.randomize,
            seed=self.seed,
        )


def model_requests(
    names: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, str]],
    weights: Mapping[str, str],
    randomize: int | None = None,
    seed: int = 0,
) -> list[ModelRequest]:
    """Return one request per model, from options that are sorted by model.

    Raises
    ------
    UsageError
        No model is named, or one twice.
    """
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"--model names {'a model twice' if names else 'no model'}",
            hint="`scdrugmap models list` shows the models",
        )
    return [
        ModelRequest(name, settings.get(name, {}), weights.get(name), randomize, seed)
        for name in names
    ]


def embed_file(
    source: Path,
    requests: Sequence[ModelRequest],
    output: Path | None = None,
    *,
    into: Path | None = None,
    shard: Shard | None = None,
    empty: str = "nan",
    overwrite: bool = False,
    store: Store | None = None,
    device: str = "auto",
    precision: str = "float32",
    token_budget: int | None = None,
    sample: str | None = None,
    min_genes: int | None = None,
    genes: Path | None = None,
    genes_by: str | None = None,
    cell_arguments: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Path:
    """Embed the cells of a file with one or more models.

    Parameters
    ----------
    source : Path
        Cells; never modified.
    requests : sequence of ModelRequest
    output : Path, optional
        h5ad file with ``obs``, ``obsm["X_<model>"]`` and ``uns["scdrugmap"]``; may be left out
        with `into`, whose file is then replaced.
    into : Path, optional
        h5ad file of the same cells that the embeddings are added to (in a copy).
    shard : Shard, optional
        Embed only this share of the cells.
    empty : {"nan", "error", "drop"}
        What becomes of cells without a gene that a model knows.
    overwrite : bool
        Replace an existing output, or embeddings that `into` has.
    store, device, precision, token_budget, sample, min_genes
        See :func:`scdrugmap.model.embed.embed_cells`.
    genes : Path, optional
        h5ad file for the mean vectors of genes too, of the only model, which must give them; see
        :func:`scdrugmap.model.gene_embedding.embed_genes`.
    genes_by : str, optional
        Column of obs: one mean per gene and value.
    cell_arguments : mapping, optional
        Keyword arguments of :func:`scdrugmap.data.cells.open_cells`.
    quiet : bool

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    UsageError, DataError, WeightsError, PluginError, ResourceError
        Before any work where that is possible; the output then is as it was.
    """
    from scdrugmap.data.cells import open_cells

    target = output or into
    if target is None:
        raise UsageError("no output is named", hint="name a file with -o, or one with --into")
    if into is not None and (shard is not None or empty == "drop"):
        raise UsageError("--into needs all cells: it goes with neither --shard nor --empty drop")
    inputs = [Path(source)] if into in (None, target) else [Path(source), Path(str(into))]
    check_output(target, overwrite=overwrite or target == into, inputs=inputs)
    for request in requests:
        request.check()
    names = [request.name for request in requests]
    if genes is not None:
        _check_genes(requests, genes, overwrite=overwrite, inputs=[*inputs, target])
    elif genes_by is not None:
        raise UsageError("--genes-by is for --genes", hint="name a file with --genes")
    known = None if into is None else check_target(into, names, sample=sample, overwrite=overwrite)
    store = Store(quiet=quiet) if store is None else store
    with open_cells(
        source, sample=sample, accepts=accepted_values(names), **dict(cell_arguments or {})
    ) as cells:
        place = None if known is None else _match(cells, known, str(into))
        for notice in cells.notices:
            say(f"Notice: {notice}", quiet=quiet)
        options = {
            "store": store,
            "device": device,
            "precision": precision,
            "token_budget": token_budget,
            "sample": sample,
            "min_genes": min_genes,
            "quiet": quiet,
        }
        config = {"empty": empty, "sample": sample, "into": into is not None}
        made = without_times(provenance("embed", [Path(source)], config))
        task = _File(cells, place, shard, empty, quiet, made)
        with together(target, genes):
            with atomic_path(target) as temporary:
                if into is not None:
                    shutil.copyfile(into, temporary)
                task.write(temporary, requests, options)
            if genes is not None:
                found = embed_genes(
                    cells,
                    requests[0].load(),
                    by=genes_by,
                    device=device,
                    precision=precision,
                    min_genes=min_genes,
                    quiet=quiet,
                )
                write_gene_embeddings(found, names[0], genes)
    return target


def _check_genes(
    requests: Sequence[ModelRequest], genes: Path, *, overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Raise before any work where vectors of genes cannot be had."""
    if len(requests) > 1:
        raise UsageError("--genes is for one model", hint="embed with one model per command")
    check_output(genes, overwrite=overwrite, inputs=list(inputs))
    get_registry().model(requests[0].name).require(Capability.GENES)
    require_genes(requests[0].load())


@dataclass
class _File:
    """One output file in the making.

    ``place`` ((n_cells,) int) is the row of each cell in a file that gets more embeddings; None
    for a new file.
    """

    cells: Cells
    place: np.ndarray | None
    shard: Shard | None
    empty: str
    quiet: bool
    made: dict[str, Any]

    def write(
        self, path: Path, requests: Sequence[ModelRequest], options: Mapping[str, Any]
    ) -> None:
        with writing_hdf5(path, "w" if self.place is None else "r+") as file:
            writer = self._fill(file, requests, options)
        writer.verify(path)

    def _fill(
        self, file: h5py.File, requests: Sequence[ModelRequest], options: Mapping[str, Any]
    ) -> EmbeddingWriter:
        records: dict[str, dict[str, Any]] = {}
        unusable = np.zeros(self.cells.n_cells, bool)
        writer: EmbeddingWriter | None = None
        chosen = np.empty(0, np.int64)
        for request in requests:
            loaded = request.load()
            self._say(loaded.weights.notices)
            job = EmbeddingJob(self.cells, loaded, **options)
            parts = job.plan(shard=self.shard)
            here = np.sort(np.concatenate([np.empty(0, np.int64), *(p.index for p in parts)]))
            if writer is None:
                chosen = here
                writer = EmbeddingWriter(file, len(chosen), droppable=self.empty == "drop")
            elif not np.array_equal(chosen, here):
                raise UsageError(
                    f"--shard: {request.name} divides the cells otherwise than {requests[0].name}",
                    hint="embed with one model per command",
                )
            writer.add(request.name, loaded.model.traits.dim)
            for result in job.run(parts):
                bad = result.index[result.status != ""]
                if len(bad) and self.empty == "error":
                    self._refuse(request.name, bad)
                unusable[bad] = True
                rows = (
                    np.searchsorted(chosen, result.index)
                    if self.place is None
                    else self.place[result.index]
                )
                writer.write(request.name, rows, result.values)
            records[request.name] = job.record()
            if job.unusable:
                fate = "left out" if self.empty == "drop" else "NaN rows"
                lost = f"{job.unusable:,} cells have no gene that {request.name} knows: {fate}"
                self._say([lost])
        assert writer is not None
        kept = chosen[~unusable[chosen]] if self.empty == "drop" else chosen
        if len(kept) < len(chosen):
            writer.drop(np.flatnonzero(~unusable[chosen]))
        if self.place is None:
            self._say(writer.write_tables(self.cells.obs.iloc[kept]))
        for name, record in records.items():
            writer.write_record(name, {**record, **self._facts(chosen, kept)})
        return writer

    def _say(self, notices: Sequence[str]) -> None:
        for notice in notices:
            say(f"Notice: {notice}", quiet=self.quiet)

    def _facts(self, chosen: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
        facts: dict[str, Any] = {"n_cells": len(kept), "made": self.made}
        facts["n_dropped"] = len(chosen) - len(kept)
        if self.shard is not None:
            facts["shard"] = {
                "i": self.shard.i,
                "n": self.shard.n,
                "n_cells": self.cells.n_cells,
                "names": names_digest(self.cells.names),
                "rows": to_runs(kept),
            }
        return facts

    def _refuse(self, model: str, index: np.ndarray) -> None:
        listed = ", ".join(map(str, self.cells.names[index[:_MOST_LISTED]]))
        raise DataError(
            f"{self.cells.where}: {len(index):,} cells have no gene that {model} knows: {listed}",
            hint="--empty nan keeps them as NaN rows, --empty drop leaves them out",
        )


def accepted_values(names: Sequence[str]) -> frozenset[str]:
    """Return the kinds of values that all models accept."""
    registry = get_registry()
    kinds = [frozenset(map(str, registry.model(name).accepts)) for name in names]
    shared = frozenset.intersection(*kinds)
    if not shared:
        raise UsageError(
            f"{' and '.join(names)} accept no kind of values in common",
            hint="embed with one model per command",
        )
    return shared


def _match(cells: Cells, known: np.ndarray, where: str) -> np.ndarray:
    """Return the row of each cell in a file of the same cells, in perhaps another order."""
    row = {name: number for number, name in enumerate(known)}
    missing = [name for name in cells.names if name not in row]
    if missing or len(known) != cells.n_cells:
        example = f", {missing[0]!r} for one" if missing else ""
        raise DataError(
            f"{where} has {len(known):,} cells, {cells.where} {cells.n_cells:,}; {len(missing):,} "
            f"of these are not in it{example}",
            hint="--into needs a file of the same cells",
        )
    return np.array([row[name] for name in cells.names], np.int64)

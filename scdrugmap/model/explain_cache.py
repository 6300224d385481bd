"""Say why an embedding is not (wholly) in the cache: what the nearest stored parts differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdrugmap.data.fingerprints import cell_hashes, gene_hashes
from scdrugmap.files import hash_json
from scdrugmap.model.embed_file import ModelRequest, accepted_values
from scdrugmap.model.job import KIND, EmbeddingJob
from scdrugmap.run.store import Store, differences

_WORDS = {
    "cells": "the content of the cells",
    "names": "the names of the cells",
    "n_cells": "the number of cells of the part",
    "groups": "the cells that are embedded together",
    "genes.names": "the genes of the file",
    "genes.table": "the version of the gene table",
    "matrix.location": "where the values are read from",
    "matrix.values": "what the values are",
    "model.code": "the files of the plugin (it is installed as editable)",
    "model.contract": "the contract of the plugin",
    "model.model": "the model",
    "model.numerics": "the version of the model's numbers",
    "model.randomize": "the seed of the random tensors",
    "model.seed": "the seed",
    "model.weights": "the weights",
    "precision": "the precision",
}
_OPTION = "model.options."


@dataclass(frozen=True)
class CacheAnswer:
    """What became of the parts of an embedding, and why those missing are missing.

    ``reasons`` maps a field of the record to (parts it concerns, stored value, wanted value).
    """

    n_parts: int
    n_found: int
    n_stored: int
    reasons: dict[str, tuple[int, Any, Any]]

    def lines(self) -> list[str]:
        """Return the answer for people."""
        missing = self.n_parts - self.n_found
        lines = [f"{self.n_found:,} of {self.n_parts:,} parts are in the cache"]
        if missing and not self.n_stored:
            lines.append("the cache holds no embedding of this model")
        for name, (n, stored, wanted) in self.reasons.items():
            lines.append(f"{n:,} parts: {words(name)} differs: stored {stored}, wanted {wanted}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the answer for programs."""
        return {
            "n_parts": self.n_parts,
            "n_found": self.n_found,
            "n_stored": self.n_stored,
            "reasons": {
                name: {"parts": n, "stored": stored, "wanted": wanted}
                for name, (n, stored, wanted) in self.reasons.items()
            },
        }


def words(name: str) -> str:
    """Return a field of a part's record in the user's words."""
    if name.startswith(_OPTION):
        return f"the option {name.removeprefix(_OPTION)}"
    return _WORDS.get(name, name)


def why_not_cached(
    source: Path,
    request: ModelRequest,
    *,
    store: Store,
    device: str = "auto",
    precision: str = "float32",
    sample: str | None = None,
    min_genes: int | None = None,
    cell_arguments: Mapping[str, Any] | None = None,
) -> CacheAnswer:
    """Look up every part of an embedding, and compare those missing with what is stored.

    Parameters
    ----------
    source, request, store, device, precision, sample, min_genes, cell_arguments
        As :func:`scdrugmap.model.embed_file.embed_file`.

    Returns
    -------
    CacheAnswer
        Each missing part is compared with the stored part of the same model that differs in the
        fewest fields.
    """
    from scdrugmap.data.cells import open_cells

    arguments = dict(cell_arguments or {})
    with open_cells(
        source, sample=sample, accepts=accepted_values([request.name]), **arguments
    ) as cells:
        job = EmbeddingJob(
            cells,
            request.load(),
            store=store,
            device=device,
            precision=precision,
            sample=sample,
            min_genes=min_genes,
            quiet=True,
        )
        genes = gene_hashes(cells.genes.identity())
        stored = [
            entry.record
            for entry in store.entries(KIND)
            if entry.record.get("model", {}).get("model") == request.name
        ]
        parts = job.plan()
        found = 0
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[Any, Any]] = {}
        for part in parts:
            record = job.part_record(part, cell_hashes(cells.rows(part.index), genes))
            if store.get(KIND, hash_json(record)) is not None:
                found += 1
                continue
            differing = [differences(record, other) for other in stored]
            for name, pair in min(differing, key=len, default={}).items():
                counts[name] += 1
                examples.setdefault(name, pair)
    reasons = {name: (n, *examples[name]) for name, n in counts.most_common()}
    return CacheAnswer(len(parts), found, len(stored), reasons)

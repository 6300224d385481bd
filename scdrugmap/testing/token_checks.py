"""Checks of the tokenizer: a cell's tokens depend on that cell and its known genes alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.modelkit.tokens import Tokens
from scdrugmap.testing.checks import CheckFailed, CheckSkipped, check
from scdrugmap.testing.comparison import in_one_order, require_close, require_equal
from scdrugmap.testing.subject import Sample, Subject

if TYPE_CHECKING:
    from anndata import AnnData

_UNKNOWN = tuple(f"SCDRUGMAP-NO-GENE-{number}" for number in range(40))
_MOST_TOKENS_TRIED = 24_000
_GENES_BEYOND_LIMIT = 300


@check("bind() reports the coverage truly and forgets the file before")
def check_binding(subject: Subject) -> None:
    """Bind two files in turn; the second time compare with a model that is built anew."""
    tokenizer, sample = subject.model.tokenizer, subject.sample
    coverage = tokenizer.bind(sample.genes)
    matched = np.asarray(coverage.matched)
    if coverage.n_genes != len(sample.genes) or matched.shape != (len(sample.genes),):
        raise CheckFailed(
            f"coverage speaks of {coverage.n_genes} genes, matched has shape {matched.shape}; "
            f"the file has {len(sample.genes)}"
        )
    if matched.dtype != bool or coverage.n_matched != int(matched.sum()):
        raise CheckFailed(f"n_matched is {coverage.n_matched}, matched holds {matched.sum()} True")
    if not 0 < coverage.n_matched <= coverage.n_vocabulary:
        raise CheckFailed(
            f"{coverage.n_matched} genes match a vocabulary of {coverage.n_vocabulary}; the kit's "
            "genes are current ones of the packaged gene table"
        )
    other = sample.columns(np.arange(len(sample.genes))[::-3])
    fresh = subject.encode(other, subject.build())
    require_equal(fresh, subject.encode(other), "after another file was bound before")


@check("tokens have the form of the contract")
def check_token_arrays(subject: Subject) -> None:
    """Look at starts, lengths and the reserved fields."""
    sample = subject.sample
    tokens = subject.encode(sample)
    n = len(sample.names)
    if not isinstance(tokens, Tokens):
        raise CheckFailed(f"encode returned a {type(tokens).__name__}, not Tokens")
    start = np.asarray(tokens.start)
    if start.shape != (n + 1,) or start.dtype != np.int64:
        raise CheckFailed(f"start is {start.dtype} {start.shape}, expected int64 ({n + 1},)")
    if start[0] != 0 or (np.diff(start) < 0).any():
        raise CheckFailed("start does not begin at 0 or decreases")
    for name, values in tokens.flat.items():
        if len(values) != start[-1]:
            raise CheckFailed(f"flat[{name!r}] has {len(values)} values, start ends at {start[-1]}")
    for name, values in tokens.cell.items():
        if len(values) != n:
            raise CheckFailed(f"cell[{name!r}] has {len(values)} values for {n} cells")
    usable = tokens.cell.get("usable")
    if usable is None or usable.dtype != bool:
        raise CheckFailed("cell['usable'] ((n,) bool) is missing")
    column = tokens.flat.get("column")
    if column is None:
        raise CheckFailed("flat['column'] (dataset column of each token) is missing")
    if column.dtype != np.int32 or (column < -1).any() or (column >= len(sample.genes)).any():
        raise CheckFailed(
            f"flat['column'] is {column.dtype} in {column.min()}..{column.max()}, expected int32 "
            f"in -1..{len(sample.genes) - 1}"
        )


@check("tokens do not depend on how the cells are cut into blocks")
def check_tokens_ignore_block_borders(subject: Subject) -> None:
    """Compare one block with blocks of other sizes."""
    sample, tokenizer = subject.sample, subject.model.tokenizer
    whole = subject.encode(sample)
    n = len(sample.names)
    for size in (1, 5, n - 1):
        parts = [
            tokenizer.encode(sample.rows[a : a + size], sample.names[a : a + size])
            for a in range(0, n, size)
        ]
        require_equal(whole, Tokens.concatenate(parts), f"in blocks of {size} cells")


@check("tokens of a cell do not depend on the other cells or on its place")
def check_tokens_ignore_other_cells(subject: Subject) -> None:
    """Compare a block with the same cells in another order and among others."""
    sample = subject.sample
    whole = subject.encode(sample)
    order = np.random.default_rng(0).permutation(len(sample.names))
    shuffled = subject.encode(sample.take(order))
    require_equal(whole.take(order), shuffled, "in another order")
    some = order[: len(order) // 2]
    require_equal(whole.take(some), subject.encode(sample.take(some)), "beside fewer cells")


@check("tokens do not depend on genes the model does not know")
def check_tokens_ignore_unknown_genes(subject: Subject) -> None:
    """Put unknown, expressed genes between the columns."""
    import scipy.sparse as sp

    sample = subject.sample
    whole = subject.encode(sample)
    random = np.random.default_rng(0)
    n, n_genes = sample.rows.shape
    unknown = random.integers(1, 9, (n, len(_UNKNOWN))).astype(np.float32)
    order = random.permutation(n_genes + len(_UNKNOWN))
    places = np.flatnonzero(order < n_genes)  # where the known columns land, in their old order
    order[places] = np.arange(n_genes)
    names = np.concatenate([sample.genes.published, np.array(_UNKNOWN, object)])[order]
    rows = sp.hstack([sample.rows, sp.csr_matrix(unknown)]).tocsr()[:, order].tocsr()
    rows.sort_indices()
    genes = type(sample.genes).from_names([str(name) for name in names], kind=subject.spec.gene_id)
    mixed = subject.encode(Sample(rows, genes, sample.names, sample.groups))
    column = mixed.flat["column"]
    old = np.full(len(order), -2, np.int64)  # -2: a token came from an unknown gene
    old[places] = np.arange(n_genes)
    mixed.flat["column"] = np.where(column < 0, -1, old[column]).astype(np.int32)
    require_equal(whole, mixed, "with unknown genes between the columns")


@check("the order of the file's columns changes nothing, unless the traits say so")
def check_column_order_changes_nothing(subject: Subject) -> None:
    """Shuffle the columns; compare each cell's tokens, in any order, and its embedding."""
    if subject.model.traits.gene_order_matters:
        raise CheckSkipped("traits.gene_order_matters: the model reads the order of the columns")
    sample = subject.sample
    order = np.random.default_rng(0).permutation(len(sample.genes))
    shuffled = sample.columns(order)
    plain, other = subject.encode(sample), subject.encode(shuffled)
    column = other.flat["column"]
    other.flat["column"] = np.where(column < 0, -1, order[column]).astype(np.int32)
    require_equal(in_one_order(plain), in_one_order(other), "with the columns shuffled")
    require_close(
        subject.embed(sample), subject.embed(shuffled), "with the columns shuffled, the embedding"
    )


@check("CSR, CSC, dense and backed input give the same tokens")
def check_storage_changes_nothing(subject: Subject) -> None:
    """Read the same cells from memory and from files, and with other index types."""
    whole = subject.encode(subject.sample)
    with tempfile.TemporaryDirectory() as folder:
        for name, source in _stored(subject.adata, Path(folder)):
            require_equal(whole, subject.encode(subject.read(source)), f"read from {name}")
    sample = subject.sample
    rows = sample.rows.copy()
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    for array in (rows.data, rows.indices, rows.indptr):
        array.flags.writeable = False
    frozen = Sample(rows, sample.genes, sample.names, sample.groups)
    require_equal(whole, subject.encode(frozen), "from read-only rows with 64-bit indices")


def _stored(adata: AnnData, folder: Path) -> list[tuple[str, AnnData | Path]]:
    import scipy.sparse as sp

    forms: list[tuple[str, AnnData | Path]] = []
    kinds: dict[str, Any] = {"CSR": sp.csr_matrix, "CSC": sp.csc_matrix, "dense": np.asarray}
    for name, convert in kinds.items():
        other = adata.copy()
        other.X = convert(adata.X.toarray())
        path = folder / f"{name.lower()}.h5ad"
        other.write_h5ad(path)
        forms += [(f"{name} in memory", other), (f"a {name} file", path)]
    return forms


@check("the rows that the tokenizer gets are not modified")
def check_input_unmodified(subject: Subject) -> None:
    """Compare rows, names and genes before and after encode()."""
    sample = subject.sample
    rows, names = sample.rows.copy(), sample.names.copy()
    digest = sample.genes.digest()
    subject.encode(Sample(rows, sample.genes, names, sample.groups))
    for part in ("data", "indices", "indptr"):
        if not np.array_equal(getattr(rows, part), getattr(sample.rows, part)):
            raise CheckFailed(f"encode() changed rows.{part} in place; copy before you compute")
    if not np.array_equal(names, sample.names) or sample.genes.digest() != digest:
        raise CheckFailed("encode() changed the names of cells or genes in place")


@check("a cell that is longer than the model reads is cut to traits.max_tokens")
def check_long_cell_is_cut(subject: Subject) -> None:
    """Embed one cell that expresses more genes than the model has room for."""
    limit = subject.model.traits.max_tokens
    if limit is None:
        raise CheckSkipped("traits.max_tokens is None: there is no limit")
    if limit > _MOST_TOKENS_TRIED:
        raise CheckSkipped(f"traits.max_tokens is {limit:,}: more than the kit has genes for")
    sample = subject.larger_sample(1, limit + _GENES_BEYOND_LIMIT)
    tokens = subject.encode(sample)
    length = int(tokens.lengths[0])
    if length > limit:
        raise CheckFailed(
            f"a cell with {sample.rows.nnz} genes has {length} tokens; traits.max_tokens is {limit}"
        )
    if not bool(tokens.usable[0]):
        raise CheckFailed("a cell with more genes than the model reads is marked unusable")
    require_equal(tokens, subject.encode(sample), "the second time")
    if not np.isfinite(subject.embed(sample)).all():
        raise CheckFailed(f"the embedding of a cell with {length} tokens is not finite")

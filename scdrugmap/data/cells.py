"""Read cells: any supported file or AnnData as named CSR blocks in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scdrugmap.data.containers import Container, open_container, reading
from scdrugmap.data.fingerprints import as_text, cell_hashes, gene_hashes
from scdrugmap.data.matrix import Matrix, choose_matrix
from scdrugmap.data.names import select_cells, unique_names
from scdrugmap.data.remap import Remapping
from scdrugmap.data.sources import RowSource, read_index
from scdrugmap.data.square import check_square
from scdrugmap.data.values import EXACT_FLOAT32, ValueChecks

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.data.genes import GeneMapping, Genes
    from scdrugmap.data.samplesheet import Samplesheet

BLOCK = 4096
"""Cells of a block unless told otherwise."""


@dataclass(frozen=True)
class Block:
    """Some cells.

    Parameters
    ----------
    index : (n,) int64
        Positions of the cells in ``Cells``.
    rows : csr_matrix float32, (n, n_genes)
        Columns sorted, no explicit zeros, no repeated entries.
    names : (n,) object str
    """

    index: np.ndarray
    rows: csr_matrix
    names: np.ndarray


class Cells:
    """Cells of one file or AnnData; made by :func:`open_cells`.

    Attributes
    ----------
    name : str
        Name of the dataset: the file's stem unless given.
    path : Path or None
    names : (n_cells,) object str
        Unique within the file.
    obs : pandas.DataFrame
        One row per cell, index = `names`.
    mapping : GeneMapping
        From the columns of the file to `genes`.
    matrix : Matrix
        Where the values are and what they are.
    """

    def __init__(
        self,
        container: Container,
        source: RowSource,
        matrix: Matrix,
        mapping: GeneMapping,
        obs: pd.DataFrame,
        positions: np.ndarray,
        *,
        name: str,
        checks: ValueChecks,
        notices: Sequence[str] = (),
        owner: bool = True,
    ) -> None:
        self.name, self.path = name, container.path
        self.obs, self.mapping, self.matrix = obs, mapping, matrix
        self.names: np.ndarray = obs.index.to_numpy(dtype=object)
        self._container, self._source, self._positions = container, source, positions
        self._checks, self._notices, self._owner = checks, list(notices), owner
        self._columns = Remapping(mapping)
        self._hashes: np.ndarray | None = None

    @property
    def genes(self) -> Genes:
        """The genes, duplicates joined."""
        return self.mapping.genes

    @property
    def n_cells(self) -> int:
        """Number of cells, after ``where``."""
        return len(self.names)

    @property
    def n_genes(self) -> int:
        """Number of genes, after joining."""
        return len(self.mapping.genes)

    @property
    def where(self) -> str:
        """Name of the file for messages."""
        return self._container.where

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know, one line each; reading may add some."""
        found = list(self._notices)
        if self._source.joined:
            found.append(f"{self.where}: repeated entries of {self.matrix.location} were summed")
        if self._checks.facts.largest >= EXACT_FLOAT32:
            found.append(
                f"{self.where}: counts up to {self._checks.facts.largest:,.0f}; from 2^24 on "
                "they are rounded to float32"
            )
        return tuple(found)

    def blocks(self, size: int = BLOCK, index: np.ndarray | None = None) -> Iterator[Block]:
        """Read all cells, or those of `index`, block by block.

        Parameters
        ----------
        size : int
            Cells of a block.
        index : (n,) int, optional
            Positions, in any order; blocks keep that order. Neighbours that stand together are
            read together, so shuffled runs of cells cost little more than file order.

        Yields
        ------
        Block

        Raises
        ------
        DataError
            A block is damaged or holds values that are not what the matrix was found to hold.
        """
        if size < 1:
            raise ValueError(f"a block needs at least 1 cell, not {size}")
        chosen = np.arange(self.n_cells) if index is None else np.asarray(index, dtype=np.int64)
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield Block(part, self.rows(part), self.names[part])

    def rows(self, index: np.ndarray) -> csr_matrix:
        """Return the cells at some positions, in that order.

        Parameters
        ----------
        index : (n,) int

        Returns
        -------
        csr_matrix float32, (n, n_genes)
        """
        self._container.check_unchanged()
        positions = self._positions[np.asarray(index, dtype=np.int64)]
        with reading(self.where):
            rows = read_index(self._source, positions)
        self._checks.apply(rows, positions)
        return self._columns.apply(rows)

    def column_totals(self) -> np.ndarray:
        """Return the total of each gene over these cells, (n_genes,) float64."""
        totals = np.zeros(self.n_genes)
        for block in self.blocks():
            totals += np.bincount(block.rows.indices, block.rows.data, minlength=self.n_genes)
        return totals

    def hashes(self) -> np.ndarray:
        """Return a hash of each cell's content, equal for equal cells in any file.

        Returns
        -------
        (n_cells, 2) uint64
            Zeros for a cell without any value.
        """
        if self._hashes is None:
            genes = gene_hashes(self.genes.identity())
            found = [cell_hashes(block.rows, genes) for block in self.blocks()]
            self._hashes = np.concatenate([np.empty((0, 2), np.uint64), *found])
        return self._hashes

    def fingerprints(self) -> np.ndarray:
        """Return :meth:`hashes` as text, which needs five times the memory.

        Returns
        -------
        (n_cells,) object str
            32 hexadecimal digits; all zeros for a cell without any value.
        """
        return as_text(self.hashes())

    def subset(self, index: np.ndarray) -> Cells:
        """Return some of the cells; they share the open file, which this object closes."""
        index = np.asarray(index, dtype=np.int64)
        part = Cells(
            self._container,
            self._source,
            self.matrix,
            self.mapping,
            self.obs.iloc[index],
            self._positions[index],
            name=self.name,
            checks=self._checks,
            notices=self._notices,
            owner=False,
        )
        if self._hashes is not None:
            part._hashes = self._hashes[index]
        return part

    def close(self) -> None:
        """Close the file."""
        if self._owner:
            self._source.close()
            self._container.close()

    def __enter__(self) -> Cells:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        matrix = self.matrix
        return (
            f"<Cells {self.name}: {self.n_cells:,} cells x {self.n_genes:,} genes, "
            f"{matrix.values} from {matrix.location} ({matrix.storage} {matrix.dtype})>"
        )


def open_cells(
    source: str | Path | AnnData,
    *,
    name: str | None = None,
    accepts: Collection[str] = ("counts", "lognorm"),
    layer: str | None = None,
    values: str | None = None,
    gene_id: str | None = None,
    where: Sequence[tuple[str, str]] = (),
    sample: str | None = None,
    round_counts: bool = False,
    transpose: bool = False,
    sheet: Samplesheet | None = None,
) -> Cells:
    """Open cells for reading; close them, or use ``with``.

    Parameters
    ----------
    source : path or AnnData
        h5ad, zarr, 10x HDF5 file or folder, or an object in memory (never modified).
    name : str, optional
        Name of the dataset; default: the file's stem.
    accepts : collection of str
        Values that can be used: ``counts``, ``lognorm``. Counts are preferred.
    layer : str, optional
        Where the values are: ``X``, ``raw`` or the name of a layer; default: searched.
    values : str, optional
        What the values are, overriding what they look like.
    gene_id : str, optional
        ``symbol`` or ``ensembl``; default: found out.
    where : sequence of (column, value)
        Take only cells with this value in obs; several values of one column are alternatives.
    sample : str, optional
        Column of obs that makes repeated cell names unique.
    round_counts : bool
        Round fractional counts (RSEM).
    transpose : bool
        The file holds genes in rows.
    sheet : Samplesheet, optional
        Describes the file's cells: adds columns to obs.

    Returns
    -------
    Cells

    Raises
    ------
    UsageError
        No such path, layer or column; no cell is selected.
    DataError
        The file is damaged, dangerous, or holds nothing that can be used.
    ResourceError
        The file cannot be read now.
    """
    from scdrugmap.data.genes import read_genes

    container = open_container(source, name)
    try:
        with reading(container.where):
            choice = choose_matrix(
                container,
                accepts,
                layer=layer,
                values=values,
                round_counts=round_counts,
                transpose=transpose,
            )
            obs, var = container.obs(), container.var(choice.matrix.location)
    except BaseException:
        container.close()
        raise
    matrix, rows = choice.matrix, choice.source
    try:
        if transpose:
            obs, var = var, obs
        notices = [*container.notices, *choice.notices]
        if rows.shape[0] == rows.shape[1] and matrix.storage != "dense" and container.path:
            with reading(container.where):
                notices += check_square(rows, obs, var, part=matrix.location, where=container.where)
        if sheet is not None:
            obs, told = sheet.describe(container.path, obs)
            notices += told
        stored = obs.index
        names, name_notices = unique_names(obs, sample, container.where)
        obs = obs.set_axis(pd.Index(names, dtype=object))
        positions = select_cells(obs, where, container.where)
        checks = ValueChecks(
            matrix.values,
            matrix.location,
            container.where,
            strict=values is None,
            round_counts=round_counts,
        )
        map_genes = partial(
            read_genes,
            var,
            gene_id=gene_id,
            values=matrix.values,
            where=container.where,
            obs_names=stored.tolist(),
        )
        mapping = map_genes()
        if matrix.values == "lognorm" and mapping.counts.get("joined"):
            mapping = map_genes(totals=_file_totals(rows, checks))
        return Cells(
            container,
            rows,
            matrix,
            mapping,
            obs if len(positions) == len(obs) else obs.iloc[positions],
            positions,
            name=container.name,
            checks=checks,
            notices=[*notices, *name_notices, *mapping.notices],
        )
    except BaseException:
        rows.close()
        container.close()
        raise


def _file_totals(source: RowSource, checks: ValueChecks) -> np.ndarray:
    """Return the total of each column of the file, whichever cells are selected."""
    totals: Any = np.zeros(source.shape[1])
    for start in range(0, source.shape[0], BLOCK):
        stop = min(source.shape[0], start + BLOCK)
        rows = source.read([(start, stop)])
        checks.apply(rows, np.arange(start, stop))
        totals += np.bincount(rows.indices, rows.data, minlength=source.shape[1])
    return totals

"""Permutation: what becomes of the answers when a gene's values are dealt out anew among cells.

Needs nothing of a predictor but its answers (Breiman, Random Forests, 2001; for any model: Fisher,
Rudin and Dominici, JMLR 2019). The attribution of a gene to a cell is the answer as it is minus the
answer with another cell's value of that gene, as p_sensitive: positive where the cell's own value
speaks for sensitive. Genes that go together stand in for each other: each alone may matter little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.explanation.attributed import PROBABILITY, Attributed
from scdrugmap.progress import Progress

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix, csr_matrix

Answers = Callable[["csr_matrix", np.ndarray, np.ndarray], np.ndarray]
"""Rows, cell names and samples to (n,) float probabilities of sensitive."""

_ROWS_AT_ONCE = 2_048


class Permutation:
    """Permutation of chosen genes.

    Parameters
    ----------
    answers : callable
    columns : (k,) int64
        Genes of the file that are permuted.
    seed : int
        One permutation per gene follows from it and the gene's column.
    grouped : bool
        The cells of a sample see each other: all are predicted again for each gene. Otherwise
        only cells whose value changes are.
    """

    name, unit = "permutation", PROBABILITY
    coefficients: np.ndarray | None = None

    def __init__(
        self,
        answers: Answers,
        columns: np.ndarray,
        *,
        seed: int,
        grouped: bool = False,
        title: str = "permute",
        quiet: bool = False,
    ) -> None:
        self.answers, self.columns, self.seed, self.grouped = answers, columns, seed, grouped
        self.title, self.quiet = title, quiet

    def attribute(
        self, rows: csr_matrix, names: np.ndarray, groups: np.ndarray
    ) -> Iterator[Attributed]:
        """Explain cells, all together; see :class:`~scdrugmap.explanation.attributed.Method`."""
        p = np.asarray(self.answers(rows, names, groups), np.float64)
        values = self.changes(rows, names, groups, p)
        yield Attributed(np.arange(len(p)), values, p, np.full(len(p), np.nan))

    def changes(
        self, rows: csr_matrix, names: np.ndarray, groups: np.ndarray, p: np.ndarray
    ) -> csr_matrix:
        """Return p minus the answer with each gene permuted ((n, n_genes) CSR float64).

        Parameters
        ----------
        p : (n,) float64
            Answers to the cells as they are.
        """
        from scipy.sparse import csr_matrix

        n = len(p)
        found = np.zeros((n, len(self.columns)))
        by_gene = rows.tocsc()
        with Progress(self.title, len(self.columns), "genes", quiet=self.quiet) as progress:
            for task in self._tasks(by_gene, n):
                shuffled = [replaced(rows[cells], c, new) for _, c, cells, new in task]
                cells = np.concatenate([cells for _, _, cells, _ in task])
                answers = self.answers(_stacked(shuffled), names[cells], groups[cells])
                start = 0
                for place, _, of_gene, _ in task:
                    stop = start + len(of_gene)
                    found[of_gene, place] = p[of_gene] - answers[start:stop]
                    start = stop
                progress.advance(len(task))
        found = np.nan_to_num(found)  # a cell that lost its only gene, or never had one
        k = len(self.columns)
        return csr_matrix(
            (found.ravel(), np.tile(self.columns, n), np.arange(0, n * k + 1, k)),
            (n, rows.shape[1]),
        )

    def _tasks(
        self, by_gene: csc_matrix, n: int
    ) -> Iterator[list[tuple[int, int, np.ndarray, np.ndarray]]]:
        """Yield genes that are predicted together: place, column, cells, and their new values."""
        held: list[tuple[int, int, np.ndarray, np.ndarray]] = []
        n_rows = 0
        for place, column in enumerate(self.columns):
            own = by_gene[:, [column]].toarray().ravel()
            new = own[np.random.default_rng([self.seed, int(column)]).permutation(n)]
            cells = np.arange(n) if self.grouped else np.flatnonzero(own != new)
            held.append((place, int(column), cells, new[cells]))
            n_rows += len(cells)
            # The cells of a group must not meet themselves: one gene at a time.
            if self.grouped or n_rows >= _ROWS_AT_ONCE:
                yield held
                held, n_rows = [], 0
        if held:
            yield held


def replaced(rows: csr_matrix, column: int, values: np.ndarray) -> csr_matrix:
    """Return cells with other values of one gene ((n,) float); sorted, no stored zeros."""
    from scipy.sparse import csr_matrix

    stays = rows.indices != column
    start = np.concatenate([[0], np.cumsum(stays)])[rows.indptr]
    rest = csr_matrix((rows.data[stays], rows.indices[stays], start), rows.shape)
    filled = np.flatnonzero(values)
    new = csr_matrix(
        (values[filled].astype(np.float32), (filled, np.full(len(filled), column))), rows.shape
    )
    joined = csr_matrix(rest + new, dtype=np.float32)
    joined.sort_indices()
    return joined


def _stacked(parts: list[csr_matrix]) -> csr_matrix:
    from scipy.sparse import csr_matrix, vstack

    return csr_matrix(vstack(parts, format="csr"))


def most_variable(expression: csr_matrix, readable: np.ndarray, most: int) -> np.ndarray:
    """Return the genes of largest variance among those that are read ((k,) int64, ascending).

    Parameters
    ----------
    expression : (n, n_genes) CSR float
        Log-normalised.
    readable : (n_genes,) bool
    most : int
    """
    n = max(expression.shape[0], 1)
    mean = np.asarray(expression.sum(0)).ravel() / n
    square = np.asarray(expression.multiply(expression).sum(0)).ravel() / n
    variance = np.where(readable, square - mean**2, 0.0)
    order = np.argsort(-variance, kind="stable")[:most]
    return np.sort(order[variance[order] > 0])

"""Cells to sentences: a random sample of a cell's genes, sorted along the genome.

Genes are drawn with repeats, a gene the more often the more it is expressed. The sentence is
``<cls>``, then chromosome by chromosome, in random order: the chromosome's token, its drawn genes
by position, and an end token.

Letters: n cells, R sentences, S drawn genes, K chromosomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.modelkit import Coverage, Tokens, bind_genes, cell_keys, columns_of, token_keys

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.modelkit import Genes
    from scdrugmap_plugin_uce import Options

PAD, _, CHROMOSOME_END, CLS = range(4)
"""Tokens that stand before those of genes; the second one, of a chromosome's begin, is not used."""

N_SPECIALS = 4

_SENTENCES_AT_ONCE = 256  # keeps the arrays in between in the cache of the processor


class Genome(NamedTuple):
    """The genes of a species; token of gene ``i`` is ``4 + i``, of chromosome ``c`` ``4 + n + c``.

    Attributes
    ----------
    symbols : tuple of str
        n names in upper case.
    chromosomes : (n,) int64
        Number of the chromosome, -1 where it is not known: such a gene is never read.
    starts : (n,) int64
        Position on the chromosome.
    """

    symbols: tuple[str, ...]
    chromosomes: np.ndarray
    starts: np.ndarray


class Tokenizer:
    """The tokenizer of UCE.

    Parameters
    ----------
    genome : Genome
    options : Options
    seed : int
        Decides, together with a cell's name, all that is drawn at random.
    """

    def __init__(self, genome: Genome, options: Options, seed: int) -> None:
        n_genes = len(genome.symbols)
        self.options = options
        self.seed = seed
        self.genes = {
            symbol: gene
            for gene, symbol in enumerate(genome.symbols)
            if genome.chromosomes[gene] >= 0
        }
        self.chromosomes = np.unique(genome.chromosomes[genome.chromosomes >= 0])  # (K,)
        self._chromosome_token = (N_SPECIALS + n_genes + self.chromosomes).astype(np.int32)
        # Number among those K of each gene's chromosome; what stands for no chromosome is not read.
        self._chromosome = self.chromosomes.searchsorted(genome.chromosomes).astype(np.int32)
        self._at = np.lexsort((np.arange(n_genes), genome.starts, genome.chromosomes))
        self._place = np.empty(n_genes, np.int32)  # place of each gene along the genome
        self._place[self._at] = np.arange(n_genes, dtype=np.int32)
        self._ids = np.empty(0, np.int32)  # (n_columns,) gene of each column, -1: unknown
        self._columns = np.empty(0, np.int32)  # (n_genes,) column of each gene, -1: none

    def bind(self, genes: Genes) -> Coverage:
        """Find the species' genes among the columns of a file, upper and lower case alike."""
        ids, coverage = bind_genes(self.genes, genes, "symbol", fold_case=True)
        self._ids = ids.astype(np.int32)
        self._columns = columns_of(ids, len(self._at))
        return coverage

    def encode(self, rows: csr_matrix, cells: np.ndarray, draw: int = 0) -> Tokens:
        """Turn cells into tokens.

        Parameters
        ----------
        rows : (n, n_genes) CSR float32
            Counts.
        cells : (n,) str
        draw : int

        Returns
        -------
        Tokens
            Per token ``id`` and ``column`` (int32). A cell has one sentence after the other, as
            many as ``n_samples``, or nothing if it expresses no known gene.

        Raises
        ------
        DataError
            A sentence is longer than ``pad_length``.
        """
        usable = np.zeros(len(cells), bool)
        n_tokens = np.zeros(len(cells), np.int64)
        ids, columns = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        n_samples = self.options.n_samples
        for index, genes, ranks in self._drawn(rows, cell_keys(self.seed, cells, draw)):
            id_, column, lengths = self.sentences(genes, ranks)
            if lengths.max() > self.options.pad_length:
                self._refuse(cells[index[lengths.argmax() // n_samples]], int(lengths.max()))
            ids.append(id_)
            columns.append(column)
            usable[index] = True
            n_tokens[index] = lengths.reshape(-1, n_samples).sum(1)
        return Tokens(
            np.concatenate([[0], np.cumsum(n_tokens)]).astype(np.int64),
            {"id": np.concatenate(ids), "column": np.concatenate(columns)},
            {"usable": usable},
        )

    def _refuse(self, cell: str, length: int) -> None:
        raise DataError(
            f"cell {cell}: its sentence has {length:,} tokens, pad_length allows "
            f"{self.options.pad_length:,}",
            hint="lower sample_size, or raise pad_length",
        )

    def _drawn(
        self, rows: csr_matrix, keys: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Draw genes, some cells at a time: (m,) cells, (R, S) genes, (R, K) chromosome ranks."""
        n_samples, n_genes = self.options.n_samples, self.options.sample_size
        at_once = max(1, _SENTENCES_AT_ONCE // n_samples)
        draw = self._draw_legacy if self.options.sampler == "legacy" else self._draw
        for first in range(0, len(keys), at_once):
            index, drawn, ranks = [], [], []
            for cell in range(first, min(first + at_once, len(keys))):
                row = slice(rows.indptr[cell], rows.indptr[cell + 1])
                genes = self._ids.take(rows.indices[row])
                known = genes >= 0
                if known.any():
                    found, order = draw(genes[known], rows.data[row][known], keys[cell])
                    index.append(cell)
                    drawn.append(found)
                    ranks.append(order)
            if index:
                shape = (len(index) * n_samples, -1)
                yield (
                    np.array(index),
                    np.concatenate(drawn).reshape(len(index) * n_samples, n_genes),
                    np.concatenate(ranks).reshape(shape),
                )

    def _draw(
        self, genes: np.ndarray, counts: np.ndarray, key: np.uint64
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the genes of one cell, and a random rank for each chromosome."""
        order = genes.argsort()
        n_samples, K = self.options.n_samples, len(self.chromosomes)
        random = np.random.Generator(np.random.Philox(key=int(key)))
        uniforms = random.random((n_samples, self.options.sample_size))
        drawn = genes[order][draw_genes(sampling_weights(counts[order]), uniforms)]
        numbers = token_keys(key, np.arange(n_samples * K)).reshape(n_samples, K)
        return drawn, numbers.argsort(1).argsort(1).astype(np.int32)

    def _draw_legacy(
        self, genes: np.ndarray, counts: np.ndarray, key: np.uint64
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw as the original does: genes in the file's order, then present chromosomes."""
        random = self.legacy_generator(key)
        weights = sampling_weights(counts)
        drawn, ranks = [], []
        for _ in range(self.options.n_samples):
            found = genes[draw_genes(weights, random.random_sample(self.options.sample_size))]
            present = np.unique(self._chromosome[found])
            random.shuffle(present)
            rank = np.full(len(self.chromosomes), len(self.chromosomes), np.int32)
            rank[present] = np.arange(len(present))
            drawn.append(found)
            ranks.append(rank)
        return np.stack(drawn), np.stack(ranks)

    def legacy_generator(self, key: np.uint64) -> np.random.RandomState:
        """Return the generator from which the legacy sampler draws one cell."""
        return np.random.RandomState(int(key) % 2**32)

    def sentences(
        self, genes: np.ndarray, ranks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write sentences.

        Parameters
        ----------
        genes : (R, S) int
            Drawn genes, in any order.
        ranks : (R, K) int
            Rank of each of ``chromosomes`` among those of the sentence.

        Returns
        -------
        ids, columns : (sum of lengths,) int32
            Tokens, sentence after sentence, and the columns they came from.
        lengths : (R,) int64
        """
        R, S = genes.shape
        rank = np.take_along_axis(ranks, self._chromosome[genes], 1)  # (R, S)
        keys = rank.astype(np.int64) * len(self._at) + self._place[genes]
        keys.sort(1)
        rank, place = np.divmod(keys, len(self._at))
        genes = self._at[place]
        is_first = np.ones((R, S), bool)  # of its chromosome
        is_first[:, 1:] = rank[:, 1:] != rank[:, :-1]
        nth = is_first.cumsum(1)  # chromosome of each gene: 1, 2, ...
        lengths = 1 + S + 2 * nth[:, -1]
        start = np.cumsum(lengths) - lengths
        # Before a gene stand <cls>, genes, its chromosome's token and two for each chromosome before.
        position = start[:, None] + np.arange(S) + 2 * nth
        ids = np.full(lengths.sum(), CHROMOSOME_END, np.int32)
        ids[start] = CLS
        ids[position] = N_SPECIALS + genes
        ids[position[is_first] - 1] = self._chromosome_token[self._chromosome[genes[is_first]]]
        columns = np.full(len(ids), -1, np.int32)
        columns[position] = self._columns[genes]
        return ids, columns, lengths


def sampling_weights(counts: np.ndarray) -> np.ndarray:
    """Return the probability with which each gene of a cell is drawn.

    Parameters
    ----------
    counts : (k,) float32

    Returns
    -------
    (k,) float32
        Proportional to log(1 + count); 0 for a gene without counts.
    """
    weights = np.log1p(counts)
    return weights / weights.sum()


def draw_genes(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Draw genes with repeats.

    Parameters
    ----------
    weights : (k,) float32
    uniforms : float64
        In [0, 1), of any shape.

    Returns
    -------
    int64
        Positions in `weights`, of the shape of `uniforms`.
    """
    cumulative = weights.cumsum(dtype=np.float64)
    cumulative /= cumulative[-1]
    return cumulative.searchsorted(uniforms, "right")

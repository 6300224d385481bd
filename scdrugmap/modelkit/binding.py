"""Find a model's genes among the columns of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.modelkit.contract import Coverage

if TYPE_CHECKING:
    from scdrugmap.data.genes import Genes
    from scdrugmap.specs import GeneId


def bind_genes(
    vocabulary: Mapping[str, int], genes: Genes, gene_id: GeneId, *, fold_case: bool = False
) -> tuple[np.ndarray, Coverage]:
    """Match the columns of a file to a vocabulary.

    Each column is tried by its published name, then by its current symbol or Ensembl id, then
    through the Ensembl id that the vocabulary's own (perhaps older) name maps to.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Gene name to token id, without special tokens.
    genes : Genes
        Columns of the file.
    gene_id : {"symbol", "ensembl"}
        What the vocabulary's names are.
    fold_case : bool
        Compare upper-cased names.

    Returns
    -------
    ids : (n_genes,) int64
        Token id of each column, -1 where the model does not know it. No id occurs twice.
    coverage : Coverage
    """
    if fold_case:
        vocabulary = {name.upper(): token for name, token in reversed(list(vocabulary.items()))}
    ids = np.full(len(genes), -1, np.int64)
    taken: set[int] = set()

    def claim(lookup: Mapping[str, int], names: np.ndarray, *, fold: bool) -> None:
        for column in np.flatnonzero(ids < 0):
            name = names[column]
            token = lookup.get(name.upper() if fold else name) if name else None
            if token is not None and token not in taken:
                ids[column] = token
                taken.add(token)

    if gene_id == "symbol":
        claim(vocabulary, genes.published, fold=fold_case)
        claim(vocabulary, genes.symbol, fold=fold_case)
        if (genes.ensembl[ids < 0] != "").any():
            older = type(genes).from_names(list(vocabulary), kind="symbol").ensembl
            claim(_unique(older, vocabulary, taken), genes.ensembl, fold=False)
    else:
        claim(vocabulary, genes.ensembl, fold=fold_case)
        claim(vocabulary, genes.published, fold=fold_case)
    matched = ids >= 0
    return ids, Coverage(len(genes), int(matched.sum()), len(vocabulary), matched)


def _unique(keys: np.ndarray, vocabulary: Mapping[str, int], taken: set[int]) -> dict[str, int]:
    """Map Ensembl ids to token ids, for ids that exactly one vocabulary name points to."""
    found: dict[str, int] = {}
    twice: set[str] = set()
    for key, token in zip(keys, vocabulary.values(), strict=True):
        if key and key in found:
            twice.add(key)
        elif key and token not in taken:
            found[key] = token
    return {key: token for key, token in found.items() if key not in twice}


def synthetic_vocabulary(gene_id: GeneId) -> tuple[str, ...]:
    """Return the gene names that stand in for a published vocabulary with ``--weights random``.

    They are those of the packaged gene table, in its order: the same for every file, so that a
    gene has one (random) vector in all of them.
    """
    from scdrugmap.data.genes import gene_table

    return gene_table().names(gene_id)

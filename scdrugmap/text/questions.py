"""From cells to questions: ranked genes, filtered facts, and nothing that names anybody.

Data are data: gene names and facts keep only letters, digits and a few marks, and have a greatest
length, so that text in a file cannot end a message or pass for a control token. Which facts are
sent is a choice of the user among the fields of the template; names of cells, samples, donors,
files and labels are none of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.modelkit.ranking import NamedGenes
from scdrugmap.text.contract import Example, Question

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes
    from scdrugmap.text.contract import TextModel

MOST_GENE_CHARACTERS = 32
MOST_FACT_CHARACTERS = 80

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._/ -]")
_BLANKS = re.compile(r"\s+")


def filtered(text: str, most: int) -> str:
    """Return a text that can give no orders: allowed characters only, blanks joined, cut.

    Parameters
    ----------
    text : str
    most : int
        Greatest length in characters.
    """
    allowed = _NOT_ALLOWED.sub("", _BLANKS.sub(" ", text))
    return _BLANKS.sub(" ", allowed).strip()[:most].strip()


class GeneLists:
    """Lists of expressed genes, highest first, for the cells of one file.

    Parameters
    ----------
    genes : Genes
        The columns.
    model : TextModel
        Says how many genes it reads, and which its template leaves out.
    """

    def __init__(self, genes: Genes, model: TextModel) -> None:
        self._named = NamedGenes(genes, model.template.leave_out)
        self._shown = np.array(
            [filtered(name, MOST_GENE_CHARACTERS).replace(" ", "_") for name in self._named.names],
            object,
        )
        self._most = model.n_genes

    @property
    def n_known(self) -> int:
        """Number of genes of the file that have a name to be shown by."""
        return len(self._shown)

    def of(self, rows: csr_matrix) -> list[tuple[str, ...]]:
        """Return the list of each row; empty where nothing known is expressed."""
        lists = []
        for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
            ranked = self._named.rank(rows.indices[start:end], rows.data[start:end], self._most)
            lists.append(tuple(name for name in self._shown[ranked] if name))
        return lists


def facts_of(
    obs: pd.DataFrame, fields: Sequence[str], given: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return what is known of each cell.

    Parameters
    ----------
    obs : (n, ...) pandas.DataFrame
    fields : sequence of str
        Facts that may be sent; a fact is the column of that name.
    given : mapping of str to str
        Facts that hold for all cells and win over the columns.
    """
    columns = {}
    for name in fields:
        if name in given:
            columns[name] = [given[name]] * len(obs)
        elif name in obs.columns:
            columns[name] = ["" if pd.isna(value) else str(value) for value in obs[name]]
    clean: dict[str, str] = {}

    def fact(text: str) -> str:
        if text not in clean:
            clean[text] = filtered(text, MOST_FACT_CHARACTERS)
        return clean[text]

    return [
        {name: text for name, values in columns.items() if (text := fact(values[row]))}
        for row in range(len(obs))
    ]


def ask_about(
    cells: Cells,
    model: TextModel,
    *,
    index: np.ndarray | None = None,
    given: Mapping[str, str] | None = None,
    examples: Sequence[tuple[Example, ...]] = (),
) -> list[Question]:
    """Turn cells of a file into questions.

    Parameters
    ----------
    cells : Cells
    model : TextModel
    index : (n,) int64, optional
        Positions; None: all cells.
    given : mapping of str to str, optional
        Facts that hold for all cells.
    examples : sequence of tuple of Example
        The examples of each of these cells; empty: none.

    Returns
    -------
    list of Question
        One per cell, in their order; without genes where no known gene is expressed.
    """
    chosen = np.arange(cells.n_cells) if index is None else index
    lists = GeneLists(cells.genes, model)
    facts = facts_of(cells.obs.iloc[chosen], model.fields, given or {})
    questions: list[Question] = []
    for block in cells.blocks(index=chosen):
        for genes in lists.of(block.rows):
            place = len(questions)
            questions.append(
                Question(
                    cell=str(cells.names[chosen[place]]),
                    genes=genes,
                    fields=facts[place],
                    examples=examples[place] if examples else (),
                )
            )
    return questions

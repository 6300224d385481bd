"""Find the training cells of a fold in the files, and bring their genes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdrugmap.data.labels import target
from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.genes import Genes


@dataclass(frozen=True)
class Chosen:
    """Cells of one file that have a role in a fold.

    Attributes
    ----------
    cells : Cells
        The file.
    index : (n,) int64
        Positions in the file, ascending.
    table : pandas.DataFrame
        The rows of the split, one per position.
    """

    cells: Cells
    index: np.ndarray
    table: pd.DataFrame

    @property
    def y(self) -> np.ndarray:
        """(n,) float: 1 for sensitive, 0 for resistant."""
        return target(self.table["label"].to_numpy(object))

    @property
    def groups(self) -> np.ndarray:
        """(n,) object str: group of each cell."""
        return self.table["group"].to_numpy(object)

    @property
    def samples(self) -> np.ndarray:
        """(n,) object str: sample of each cell, else its group; dataset before it."""
        sample = self.table["sample"].where(self.table["sample"] != "", self.table["group"])
        return cell_keys(self.table["dataset"], sample)

    def take(self, keep: np.ndarray) -> Chosen:
        """Return some of the cells; `keep` is a mask or ascending positions in `index`."""
        return Chosen(self.cells, self.index[keep], self.table.iloc[keep])


def choose_cells(
    sources: Sequence[Cells],
    splits: pd.DataFrame,
    fold: int,
    role: str,
    *,
    dataset: str | None = None,
) -> list[Chosen]:
    """Find the cells of a role in the files.

    Parameters
    ----------
    sources : sequence of Cells
        The files that the split was made of.
    splits : pandas.DataFrame
        All rows of ``splits.tsv``.
    fold : int
    role : str
    dataset : str, optional
        Column of obs with the dataset, if the split was made with one; default: the file's name.

    Returns
    -------
    list of Chosen
        One for each file that has such cells, in the order of `sources`.

    Raises
    ------
    UsageError
        The fold does not exist; the files are not those of the split.
    DataError
        Cells of the split are not in their file.
    """
    folds = sorted(splits["fold"].unique())
    if fold not in folds:
        raise UsageError(
            f"the split has no fold {fold}", hint=f"its folds are {', '.join(map(str, folds))}"
        )
    names = [dataset_names(cells, dataset) for cells in sources]
    _check_sources(sources, names, splits, dataset)
    rows = splits[(splits["fold"] == fold) & (splits["role"] == role)]
    keys = pd.Index(cell_keys(rows["dataset"], rows["cell"]), dtype=object)
    known = np.zeros(len(rows), bool)
    chosen = []
    for cells, own in zip(sources, names, strict=True):
        found = pd.Index(cell_keys(own, cells.names), dtype=object).get_indexer(keys)
        here = np.flatnonzero(found >= 0)
        known[here] = True
        if len(here):
            here = here[np.argsort(found[here], kind="stable")]
            chosen.append(Chosen(cells, found[here].astype(np.int64), rows.iloc[here]))
    if not known.all():
        first = rows.iloc[int((~known).argmax())]
        raise DataError(
            f"{int((~known).sum()):,} of {len(rows):,} {role} cells of the split are not in the "
            f"files (the first is {first['cell']!r} of dataset {first['dataset']})",
            hint="give the files that `split` was run on, with the same --where and --sample",
        )
    return chosen


def dataset_names(cells: Cells, column: str | None) -> pd.Categorical:
    """Return the dataset of each cell of a file ((n,) str): its name, or a column of obs.

    Raises
    ------
    UsageError
        There is no such column.
    """
    from scdrugmap.data.labels import require_column
    from scdrugmap.evaluation.design import as_text

    if column is None:
        return one_text(cells.name, cells.n_cells)
    found = require_column(cells.obs, column, "--dataset", cells.where)
    return as_categories(as_text(found))


def as_categories(words: pd.Series | np.ndarray) -> pd.Categorical:
    """Hold text ((n,) object str) as categories in the order of their names.

    They are told apart here: pandas takes two texts that differ behind a NUL for one.
    """
    return pd.Categorical(words, categories=sorted(set(words)))


def one_text(word: str, n: int) -> pd.Categorical:
    """Return one text for each of `n` cells, at a byte per cell."""
    return pd.Categorical.from_codes(
        np.zeros(n, np.int8), categories=pd.Index([word], dtype=object)
    )


def cell_keys(datasets: pd.Series | pd.Categorical, names: pd.Series | np.ndarray) -> np.ndarray:
    """Return one text per cell that names dataset and cell ((n,) object str)."""
    # Not by `+`: NumPy drops a NUL at the end of a text.
    return np.array([f"{d}\0{name}" for d, name in zip(datasets, names, strict=True)], object)


def _check_sources(
    sources: Sequence[Cells],
    names: Sequence[pd.Categorical],
    splits: pd.DataFrame,
    column: str | None,
) -> None:
    files = [cells.name for cells in sources]
    twice = sorted({name for name in files if files.count(name) > 1})
    if twice and column is None:
        raise UsageError(
            f"two files are named {twice[0]}", hint="a dataset is named after its file; rename one"
        )
    wanted = set(splits["dataset"])
    strange = [c.name for c, own in zip(sources, names, strict=True) if not wanted & set(own)]
    missing = sorted(wanted - {name for own in names for name in own})
    if missing or strange:
        raise UsageError(
            f"the split was made of {', '.join(sorted(wanted))}; the files given are "
            f"{', '.join(files)}",
            hint="give exactly the files that `split` was run on (and --dataset, if it was given)",
        )


def check_classes(chosen: Sequence[Chosen], fold: int) -> None:
    """Refuse training cells that do not show both classes.

    Raises
    ------
    DataError
        There is no training cell, or all have one label.
    """
    labels = (
        pd.concat([part.table["label"] for part in chosen]) if chosen else pd.Series([], dtype=str)
    )
    if labels.nunique() < 2:
        state = (
            f"all {len(labels):,} training cells are {labels.iloc[0]}"
            if len(labels)
            else "no training cell"
        )
        raise DataError(
            f"fold {fold}: {state}; training needs sensitive and resistant cells",
            hint="make a split in which both labels are trained on; add patients or datasets",
        )


def draw_evenly(chosen: Sequence[Chosen], most: int, seed: int) -> list[Chosen]:
    """Draw at most about `most` cells, the same share of each group and label.

    Every group keeps at least one cell of each of its labels.

    Parameters
    ----------
    chosen : sequence of Chosen
    most : int
    seed : int
    """
    total = sum(len(part.index) for part in chosen)
    if total <= most:
        return list(chosen)
    random = np.random.default_rng(seed)
    drawn = []
    for part in chosen:
        stratum = part.table["group"] + part.table["label"]  # no label ends like the other
        keep: list[np.ndarray] = []
        for _, positions in sorted(pd.Series(np.arange(len(stratum))).groupby(stratum.to_numpy())):
            n = max(1, int(len(positions) * most / total))
            keep.append(random.choice(positions.to_numpy(), n, replace=False))
        drawn.append(part.take(np.sort(np.concatenate(keep))))
    return drawn


def joined(some: Sequence[Chosen], others: Sequence[Chosen]) -> list[Chosen]:
    """Put the cells of each file together again."""
    found: dict[int, Chosen] = {}
    for part in [*some, *others]:
        held = found.get(id(part.cells))
        if held is not None:
            index = np.concatenate([held.index, part.index])
            order = np.argsort(index)
            table = pd.concat([held.table, part.table]).iloc[order]
            part = Chosen(part.cells, index[order], table)
        found[id(part.cells)] = part
    return list(found.values())


def shared_genes(chosen: Sequence[Chosen]) -> tuple[Genes, list[np.ndarray]]:
    """Return the genes that all files have: never a union, which would tell the files apart.

    Returns
    -------
    genes : Genes
        In the order of the first file.
    columns : list of (G,) int64
        Per file, where these genes stand.

    Raises
    ------
    DataError
        The files have no gene in common.
    """
    identities = [part.cells.genes.identity() for part in chosen]
    places = [{name: column for column, name in enumerate(names)} for names in identities]
    common = [name for name in identities[0] if all(name in place for place in places)]
    if not common:
        raise DataError(
            "the training files share no gene",
            hint="do they use other kinds of names? Try --gene-id, or look at `scdrugmap check`",
        )
    columns = [np.array([place[name] for name in common], np.int64) for place in places]
    return chosen[0].cells.genes.take(columns[0]), columns


def read_rows(chosen: Sequence[Chosen], columns: Sequence[np.ndarray]) -> csr_matrix:
    """Read the cells of several files in shared columns ((n, G) CSR float32)."""
    from scipy.sparse import csr_matrix, vstack

    parts = []
    for part, wanted in zip(chosen, columns, strict=True):
        whole = np.array_equal(wanted, np.arange(part.cells.n_genes))
        for block in part.cells.blocks(index=part.index):
            rows = block.rows if whole else csr_matrix(block.rows[:, wanted])
            rows.sort_indices()
            parts.append(rows)
    return csr_matrix(vstack(parts, format="csr", dtype=np.float32))


def one_kind_of_values(sources: Sequence[Cells]) -> str:
    """Return what all files hold.

    Raises
    ------
    DataError
        Some hold counts, others log-normalised values: the difference would tell them apart.
    """
    kinds = {cells.matrix.values for cells in sources}
    if len(kinds) > 1:
        held = ", ".join(f"{cells.name}: {cells.matrix.values}" for cells in sources)
        raise DataError(
            f"the training files hold different values ({held})",
            hint="give files of one kind, or name a layer with --layer",
        )
    return str(kinds.pop())

"""Which cells belong together: the units that a sound split never divides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tie(NamedTuple):
    """Cells with the same value in a column belong together."""

    column: str
    within_study: bool


TIES = (
    Tie("donor", within_study=True),
    Tie("sample", within_study=True),
    Tie("cell_line", within_study=True),
    Tie("control", within_study=False),
    Tie("fingerprint", within_study=False),
)
"""What ties cells. ``cell_line`` and ``control`` are optional columns; an empty value ties nothing.
Donors and samples are names inside a study, a control or a copied cell is the same everywhere."""


def connect_cells(cells: pd.DataFrame) -> np.ndarray:
    """Name the group of each cell: its connected component over all ties.

    Cells of which neither donor nor sample is known are one group per study, because nothing is
    known that would tell them apart.

    Parameters
    ----------
    cells : DataFrame
        Columns of a :class:`~scdrugmap.evaluation.design.Design`.

    Returns
    -------
    (n,) object str
        The first donor (else sample) of the component, after its study if there are several
        studies. The names do not depend on the order of the cells.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(cells)
    study, _ = pd.factorize(cells["study"])
    ends: list[tuple[np.ndarray, np.ndarray]] = []  # (cell, node of a shared value)
    n_nodes = n
    for tie in TIES:
        if tie.column not in cells:
            continue
        filled = np.flatnonzero(cells[tie.column].to_numpy() != "")
        ends.append((filled, n_nodes + _values(cells[tie.column], study, filled, tie)))
        n_nodes = max(n_nodes, int(ends[-1][1].max(initial=-1)) + 1)
    unknown = np.flatnonzero((cells["donor"].to_numpy() == "") & (cells["sample"].to_numpy() == ""))
    ends.append((unknown, n_nodes + study[unknown]))
    n_nodes += len(cells["study"].unique())
    start, stop = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_matrix((np.ones(len(start), np.int8), (start, stop)), shape=(n_nodes, n_nodes))
    _, component = connected_components(graph, directed=False)
    return _names(cells, component[:n])


def _values(column: pd.Series, study: np.ndarray, filled: np.ndarray, tie: Tie) -> np.ndarray:
    value, names = pd.factorize(column)
    value = value[filled].astype(np.int64)
    if tie.within_study:
        value += study[filled] * len(names)
    codes, _ = pd.factorize(value)
    return codes


def _names(cells: pd.DataFrame, component: np.ndarray) -> np.ndarray:
    donor, sample = cells["donor"].to_numpy(), cells["sample"].to_numpy()
    name = np.where(donor != "", donor, np.where(sample != "", "sample " + sample, "unknown"))
    if cells["study"].nunique() > 1:
        name = cells["study"].to_numpy() + "/" + name
    first = pd.Series(name).groupby(component).min()
    return first.to_numpy(object)[pd.factorize(component, sort=True)[0]]


def describe_ties(cells: pd.DataFrame, group: np.ndarray) -> list[str]:
    """Say what a reader should know about the groups: copies of cells, and donors tied together.

    Parameters
    ----------
    cells : DataFrame
    group : (n,) object str
        As :func:`connect_cells` gives them.
    """
    notices = [*_describe_copies(cells), *_describe_samples(cells)]
    donors = cells.groupby("study")["donor"].nunique().sum()
    groups = len(np.unique(group))
    if groups < donors:
        notices.append(
            f"{donors:,} donors form {groups:,} groups, because they share samples, cell lines, "
            "controls or copies of cells"
        )
    return notices


def _describe_copies(cells: pd.DataFrame) -> list[str]:
    known = cells[cells["fingerprint"] != ""]
    classes = known.groupby("fingerprint", sort=False)
    size = classes["cell"].transform("size")
    copies = int((size > 1).sum()) - int((classes.size() > 1).sum())
    if not copies:
        return []
    doubled = known[size > 1].groupby("fingerprint", sort=False)
    across = int((doubled["dataset"].nunique() > 1).sum())
    notice = (
        f"{copies:,} cells are copies of another cell (same genes, same values), "
        f"{across:,} cells occur in several datasets; copies stay in one group"
    )
    torn = int((doubled["label"].nunique() > 1).sum())
    if not torn:
        return [notice]
    return [notice, f"{torn:,} cells have copies with the other label: check the labels"]


def _describe_samples(cells: pd.DataFrame) -> list[str]:
    named = cells[(cells["sample"] != "") & (cells["donor"] != "")]
    donors = named.groupby(["study", "sample"])["donor"].nunique()
    shared = donors[donors > 1]
    if shared.empty:
        return []
    sample, count = shared.index[int(shared.argmax())][1], int(shared.max())
    notice = (
        f"{len(shared):,} samples hold cells of several donors ({sample!r} of {count:,}) and tie "
        "them into one group; if the name only repeats (pre, post), give --sample a column in "
        "which each sample has a name of its own"
    )
    return [notice]


def groups_of_class(cells: pd.DataFrame) -> pd.Series:
    """Count the groups that hold cells of each label.

    Parameters
    ----------
    cells : DataFrame
        With ``label`` and ``group``.

    Returns
    -------
    Series of int
        Indexed by label.
    """
    return cells.groupby("label")["group"].nunique()


def design_fault(cells: pd.DataFrame, classes: Sequence[str], where: str = "") -> DataError | None:
    """Return why no sound split of these cells exists, or None.

    Parameters
    ----------
    cells : DataFrame
        With ``label``, ``group`` and ``donor``.
    classes : sequence of str
        Labels that must be there.
    where : str
        Which of several datasets the cells are, for the message.
    """
    at = f"{where}: " if where else ""
    counts = groups_of_class(cells)
    missing = [name for name in classes if name not in counts.index]
    if missing:
        return DataError(
            f"{at}no cell is {missing[0]}; a split needs both labels",
            hint="check --sensitive and --resistant, or add a dataset with the other label",
        )
    groups = cells["group"].unique()
    if len(groups) == 1:
        donors = cells["donor"].nunique()
        tied = f" ({donors:,} donors that share samples, cell lines or cells)" * (donors > 1)
        return DataError(
            f"{at}all {len(cells):,} cells belong to one group, {groups[0]!r}{tied}; a group "
            "is never divided",
            hint="--group must name the column that tells patients, animals or cultures apart; "
            "for a single one only --protocol paper-pooled gives a number, which is no evidence",
        )
    for name in classes:
        if counts[name] < 2:
            only = cells.loc[cells["label"] == name, "group"].iloc[0]
            return DataError(
                f"{at}confounded design: all {name} cells come from one group, {only!r} "
                f"({', '.join(f'{counts[c]} {c}' for c in classes)} groups; each class needs 2), "
                "so the label cannot be told from the library",
                hint=f"add a second {name} sample; --protocol paper-pooled gives a number that is "
                "no evidence",
            )
    return None

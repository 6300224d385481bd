"""What gene names look like: of which kind they are, and which cannot be human genes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from scdrugmap.data.gene_table import ENSEMBL_ID, gene_table
from scdrugmap.errors import DataError

_HUMAN_PREFIX = re.compile(r"(?:GRCh3[78]|hg19|hg38)_+(?=.)")
_MOUSE_PREFIX = re.compile(r"(?:GRCm3[89]|mm10|mm39)_+(?=.)")
_OTHER_SPECIES = re.compile(r"(ENS[A-Z]{3,4})G\d{11}(?:\.\d+)?")
_TITLE_CASE = re.compile(r"[A-Z][a-z]+[0-9a-z.-]*")
_LOWER_CASE = re.compile(r"(?=.*[a-z])[a-z0-9.-]+")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
_DATE = re.compile(
    rf"\d{{1,2}}-(?:{_MONTHS})|(?:{_MONTHS})-\d{{1,2}}|\d{{4}}-\d{{2}}-\d{{2}}(?: 00:00:00)?"
    r"|\d{1,2}/\d{1,2}/\d{2,4}",
    re.IGNORECASE,
)
_MISSING = frozenset({"", "nan", "none", "<na>"})
_SPECIES = {"ENSMUS": "mouse", "ENSRNO": "rat", "ENSDAR": "zebrafish", "ENSMMU": "macaque"}

_MOST = 0.5  # a kind that more than half of the names show is the kind of the file
_SOME_KNOWN = 0.2  # mouse symbols in capitals: half and more of them are human symbols
_SAMPLE = 2000


def as_text(names: Sequence[object] | np.ndarray, where: str) -> np.ndarray:
    """Return names as text without blanks around them.

    Parameters
    ----------
    names : (n,)
        Text, or bytes that should be UTF-8.

    Returns
    -------
    (n,) object str

    Raises
    ------
    DataError
        A name is not UTF-8, or missing.
    """
    out = np.empty(len(names), object)
    for i, name in enumerate(names):
        if isinstance(name, bytes):
            try:
                name = name.decode()
            except UnicodeDecodeError as err:
                raise DataError(
                    f"{where}: the gene name in row {i} of var is not UTF-8: {name[:40]!r}",
                    hint="write the file again with names in UTF-8",
                ) from err
        out[i] = str(name).strip()
    missing = [i for i, name in enumerate(out) if name.lower() in _MISSING]
    if missing:
        raise DataError(
            f"{where}: {len(missing):,} gene names are empty or NaN, the first in row "
            f"{missing[0]} of var",
            hint="name these genes or remove them: adata[:, adata.var_names != 'nan']",
        )
    return out


def is_ensembl(names: Sequence[str] | np.ndarray) -> bool:
    """Tell whether most names are human Ensembl gene ids."""
    return _share(names, ENSEMBL_ID.fullmatch) > _MOST


def is_number(names: Sequence[str] | np.ndarray) -> bool:
    """Tell whether most names are plain numbers."""
    return _share(names, str.isdecimal) > _MOST


def strip_genome(names: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Take the names of genomes, which 10x puts before genes of mixed references, off.

    Returns
    -------
    bare : (n,) object str
    is_mouse : (n,) bool
        The name said that the gene is a mouse's.
    n_stripped : int
        Human names that had a prefix.
    """
    if not any("_" in name for name in names):
        return names, np.zeros(len(names), bool), 0
    is_mouse = np.array([_MOUSE_PREFIX.match(name) is not None for name in names], bool)
    bare = np.array(
        [
            (_MOUSE_PREFIX if mouse else _HUMAN_PREFIX).sub("", name, count=1)
            for name, mouse in zip(names, is_mouse, strict=True)
        ],
        object,
    )
    return bare, is_mouse, int(((bare != names) & ~is_mouse).sum())


def spreadsheet_dates(names: np.ndarray) -> list[str]:
    """Return the names that a spreadsheet turned into dates (``1-Mar``, ``2-Sep``)."""
    return [name for name in names if name[:1].isalnum() and _DATE.fullmatch(name)]


def refuse_other_kinds(names: np.ndarray, where: str) -> None:
    """Refuse names that are not human symbols or Ensembl ids, saying what they look like.

    The gene table ignores case as a last resort; without this check it would take mouse genes for
    human ones.

    Parameters
    ----------
    names : (n,) object str

    Raises
    ------
    DataError
        Another species, Entrez numbers, row numbers, or symbols in lower case.
    """
    others = [match[1] for name in names if (match := _OTHER_SPECIES.fullmatch(name))]
    if len(others) > _MOST * len(names):
        prefix = max(set(others), key=others.count)
        raise DataError(
            f"{where}: {len(others) / len(names):.0%} of the gene names are Ensembl ids of "
            f"{_SPECIES.get(prefix, 'another species')} ({_some(names)})",
            hint="only human genes are known: map them to human orthologues first",
        )
    title = _share(names, _TITLE_CASE.fullmatch)
    if title > _MOST and known_share(names) > _SOME_KNOWN:
        raise DataError(
            f"{where}: the gene names look like mouse: {title:.0%} title case ({_some(names)})",
            hint="only human genes are known: map them to human orthologues first",
        )
    if is_number(names):
        numbers = [int(name) for name in names if name.isdecimal()]
        if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
            raise DataError(
                f"{where}: the gene names are row numbers ({_some(names)})",
                hint="put symbols or Ensembl ids into var_names",
            )
        raise DataError(
            f"{where}: {_share(names, str.isdecimal):.0%} of the gene names are numbers "
            f"({_some(names)}), which look like Entrez ids",
            hint="put symbols or Ensembl ids into var_names, or into a column `gene_symbol`",
        )
    lower = _share(names, _LOWER_CASE.fullmatch)
    if lower > _MOST and known_share(names) > _SOME_KNOWN:
        raise DataError(
            f"{where}: {lower:.0%} of the gene names are in lower case ({_some(names)}), as "
            "those of fish are",
            hint="if they are human, write them as they are published: "
            "adata.var_names = adata.var_names.str.upper()",
        )


def looks_transposed(obs_names: Sequence[str], var_names: Sequence[str]) -> bool:
    """Tell whether a file seems to hold genes in rows and cells in columns.

    Parameters
    ----------
    obs_names, var_names : sequence of str
        At most some thousand of each are looked at.
    """
    return known_share(obs_names) > _MOST > 10 * known_share(var_names)


def known_share(names: Sequence[str] | np.ndarray) -> float:
    """Return the share of names, of a sample, that are human genes."""
    step = max(1, len(names) // _SAMPLE)
    sample = [str(name) for name in names[::step]]
    _, ensembl, _ = gene_table().resolve(sample)
    return float((ensembl != "").mean()) if sample else 0.0


def _share(names: Sequence[str] | np.ndarray, test: Callable[[str], object]) -> float:
    return sum(1 for name in names if test(name)) / max(1, len(names))


def _some(names: np.ndarray) -> str:
    return ", ".join(names[:3])

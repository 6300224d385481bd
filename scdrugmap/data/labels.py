"""What the user's labels mean. Only this module knows that sensitive is 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

SENSITIVE, RESISTANT = "sensitive", "resistant"
"""The only label words that are ever stored."""

_MISSING = frozenset({"", "nan", "<na>", "none"})
_TRUTH_VALUES = ({"0", "1"}, {"false", "true"}, {"no", "yes"}, {"n", "y"}, {"-1", "1"})
_MOST_LISTED = 6


@dataclass(frozen=True)
class Labels:
    """Labels of some cells.

    Parameters
    ----------
    values : (n,) object str
        ``sensitive``, ``resistant``, or ``""`` for a cell that is set aside.
    n_missing : int
        Cells without a label.
    n_dropped : int
        Cells whose label is one of those to drop.
    notices : tuple of str
    """

    values: np.ndarray
    n_missing: int
    n_dropped: int
    notices: tuple[str, ...]

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool, True for cells that have one of the two labels."""
        return self.values != ""


@dataclass(frozen=True)
class LabelMap:
    """Which words mean sensitive, which resistant, and which cells to set aside.

    Words are compared without blanks around them and without regard to case, and only as a whole:
    ``resistant`` is not found in ``non-resistant``. Made by :meth:`parse`.
    """

    sensitive: tuple[str, ...]
    resistant: tuple[str, ...]
    drop: tuple[str, ...]

    @classmethod
    def parse(
        cls,
        sensitive: Iterable[str] = (),
        resistant: Iterable[str] = (),
        drop: Iterable[str] = (),
    ) -> LabelMap:
        """Make a map of the words a user gave.

        A class without any word of its own is called by its plain name.

        Raises
        ------
        UsageError
            One word stands in two lists.
        """
        lists = {
            "--sensitive": _words(sensitive) or (SENSITIVE,),
            "--resistant": _words(resistant) or (RESISTANT,),
            "--drop": _words(drop),
        }
        owner: dict[str, str] = {}
        for option, words in lists.items():
            for word in words:
                if owner.setdefault(word, option) != option:
                    raise UsageError(
                        f"the label {word!r} stands in {owner[word]} and in {option}",
                        hint="a label can mean one thing only",
                    )
        return cls(*lists.values())

    def apply(self, column: pd.Series, *, where: str) -> Labels:
        """Translate a column of labels.

        Parameters
        ----------
        column : pandas.Series
            Text, categories, numbers or truth values.
        where : str
            Name of the file for messages.

        Raises
        ------
        DataError
            A label is in no list, or no cell has a label that counts.
        """
        codes, uniques = _factorize(column)
        word_of = np.array([_fold(value) for value in uniques], object)
        meaning = {
            **dict.fromkeys(self.sensitive, SENSITIVE),
            **dict.fromkeys(self.resistant, RESISTANT),
        }
        known = {*meaning, *self.drop}
        missing = np.array([word in _MISSING and word not in known for word in word_of], bool)
        counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
        strange = [i for i, word in enumerate(word_of) if word not in known and not missing[i]]
        strange = [i for i in strange if counts[i]]
        if strange:
            raise self._refusal(column, [(uniques[i], int(counts[i])) for i in strange], where)
        translated = np.array([*(meaning.get(word, "") for word in word_of), ""], object)
        values = translated[codes]  # code -1, a missing value, is the last
        n_missing = int((codes < 0).sum() + counts[missing].sum())
        n_dropped = int((values == "").sum()) - n_missing
        if not (values != "").any():
            raise DataError(
                f"{where}: no cell has a label in {column.name!r} ({n_missing:,} are missing, "
                f"{n_dropped:,} set aside)",
                hint="name another column with --label",
            )
        notices = []
        if n_missing:
            notices.append(f"{where}: {n_missing:,} cells without {column.name} are set aside")
        if n_dropped:
            notices.append(
                f"{where}: {n_dropped:,} cells are set aside as told ({', '.join(self.drop)})"
            )
        return Labels(values, n_missing, n_dropped, tuple(notices))

    def _refusal(
        self, column: pd.Series, strange: list[tuple[object, int]], where: str
    ) -> DataError:
        words = {_fold(value) for value, _ in strange}
        if any(words == pair for pair in _TRUTH_VALUES):
            low, high = sorted(words)
            return DataError(
                f"{where}: {column.name!r} holds {low} and {high}: which one is sensitive?",
                hint=f"say it, as in --sensitive {high} --resistant {low}",
            )
        listed = ", ".join(f"{value!s} ({n:,} cells)" for value, n in strange[:_MOST_LISTED])
        more = len(strange) - _MOST_LISTED
        listed += f" and {more:,} more" if more > 0 else ""
        expected = ", ".join((*self.sensitive, *self.resistant, *self.drop))
        one = str(strange[0][0])
        return DataError(
            f"{where}: {column.name!r} holds labels without a meaning: {listed}; "
            f"expected {expected}",
            hint="say what each means with --sensitive A,B --resistant C,D, or set cells aside, "
            f"as in --drop {one!r}",
        )


def target(labels: np.ndarray) -> np.ndarray:
    """Return what estimators learn: 1.0 for sensitive, 0.0 for resistant.

    Parameters
    ----------
    labels : (n,) str
        Only the two words; leave out cells that are set aside first.

    Returns
    -------
    (n,) float64
    """
    labels = np.asarray(labels, object)
    sensitive = labels == SENSITIVE
    if not (sensitive | (labels == RESISTANT)).all():
        raise ValueError(f"labels must be {SENSITIVE} or {RESISTANT}, not {set(labels)}")
    return sensitive.astype(np.float64)


def require_column(obs: pd.DataFrame, name: str, option: str, where: str) -> pd.Series:
    """Return a column of obs that an option names.

    Raises
    ------
    UsageError
        There is none of that name; the nearest names are offered.
    """
    if name in obs:
        column: pd.Series = obs[name]
        return column
    columns = [str(column) for column in obs.columns]
    folded = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(folded[n] for n in near)}? " if near else ""
    listed = ", ".join(columns[:20]) or "no column"
    raise UsageError(
        f"{where} has no column {name!r} in obs ({option})", hint=f"{hint}obs has: {listed}"
    )


def _factorize(column: pd.Series) -> tuple[np.ndarray, list[object]]:
    """Return codes ((n,) int64, -1 for missing) and the different values."""
    import pandas as pd

    codes, uniques = pd.factorize(column.astype(object), use_na_sentinel=True)
    return codes.astype(np.int64), list(uniques)


def _words(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in map(_fold, given) if word))


def _fold(value: object) -> str:
    """Return the form in which labels are compared; the number 1.0 is the word ``1``."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip().casefold()

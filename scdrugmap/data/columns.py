"""Guess what the columns of obs are for: the response, the patient, the kind of cell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdrugmap.data.labels import RESISTANT, SENSITIVE

if TYPE_CHECKING:
    import pandas as pd

_LABEL_NAMES = re.compile(
    r"response|respon[cs]e.*|.*_response|responder|condition|sensitivity|resistance|outcome"
    r"|label|drug_response|recist|pathological_response|status"
)
_SENSITIVE_WORDS = frozenset(
    {SENSITIVE, "sens", "s", "responder", "r", "cr", "pr", "response", "yes", "1", "true"}
)
_RESISTANT_WORDS = frozenset(
    {
        *(RESISTANT, "res", "nonresponder", "non-responder", "non_responder", "nr", "pd", "no"),
        *("non responder", "non-response", "no response", "0", "false", "sd"),
    }
)
_GROUP_NAMES = (
    *("patient", "patient_id", "donor_id", "donor", "subject", "subject_id", "individual"),
    *("patientid", "case_id", "animal", "mouse", "sample", "sample_id", "sampleid", "orig.ident"),
    *("library", "library_id", "culture", "replicate", "batch"),
)
_CELL_TYPE_NAMES = re.compile(
    r"(author_)?cell_?type.*|.*_celltype|celltype.*|annotation|malignan(t|cy)|major_?type"
)
_TUMOUR = re.compile(
    r"malignan|tumou?r|cancer|carcinoma|neoplas|melanoma|myeloma|leuk[a]?emi|blast"
)
_NOT_TUMOUR = re.compile(
    r"non[-_ ]?(malignan|tumou?r|cancer|neoplas)|normal|healthy|associated|infiltrat|fibroblast"
    r"|osteoblast|erythroblast|megakaryoblast"
)
_MOST_LABELS = 8
_MOST_LISTED = 6
_SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class LabelColumn:
    """A column that could be the response.

    Parameters
    ----------
    name : str
    counts : dict of str to int
        Cells per value.
    ready : bool
        Only the words sensitive and resistant occur: no map is needed.
    """

    name: str
    counts: dict[str, int]
    ready: bool


@dataclass(frozen=True)
class GroupColumn:
    """A column that could say which cells belong together."""

    name: str
    n_groups: int


def label_columns(obs: pd.DataFrame) -> tuple[LabelColumn, ...]:
    """Return columns that could be the response, the likeliest first."""
    ranked: list[tuple[int, int, LabelColumn]] = []
    for place, column in enumerate(obs):
        counts = _value_counts(obs[column], _MOST_LABELS)
        if counts is None:
            continue
        words = {word.strip().casefold() for word in counts}
        ready = bool(words) and words <= {SENSITIVE, RESISTANT}
        both = bool(words & _SENSITIVE_WORDS) and bool(words & _RESISTANT_WORDS)
        named = _LABEL_NAMES.fullmatch(str(column).strip().lower()) is not None
        telling = bool(words & {SENSITIVE, RESISTANT})
        if not (ready or (named and len(words) > 1) or (both and telling)):
            continue
        rank = 0 if ready else 1 if both and named else 2
        ranked.append((rank, place, LabelColumn(str(column), counts, ready)))
    return tuple(item for _, _, item in sorted(ranked, key=lambda found: found[:2]))


def group_columns(obs: pd.DataFrame) -> tuple[GroupColumn, ...]:
    """Return columns that could be the patient or sample, the likeliest first."""
    by_name = {str(column).strip().lower(): column for column in reversed(list(obs))}
    found = []
    for name in _GROUP_NAMES:
        if name in by_name:
            n_groups = int(obs[by_name[name]].nunique())
            if 1 <= n_groups <= max(2, len(obs) // 2):
                found.append(GroupColumn(str(by_name[name]), n_groups))
    return tuple(found)


def mixed_cell_types(obs: pd.DataFrame, where: str) -> str:
    """Return a notice if tumour cells and others are mixed in a file, else ``""``."""
    for column in obs:
        if not _CELL_TYPE_NAMES.fullmatch(str(column).strip().lower()):
            continue
        counts = _value_counts(obs[column], 500)
        if counts is None:
            continue
        tumour = [word for word in counts if _is_tumour(word)]
        n_tumour = sum(counts[word] for word in tumour)
        n_other = sum(counts.values()) - n_tumour
        if min(n_tumour, n_other) > _SMALLEST_SHARE * len(obs):
            return (
                f"{where}: {column} mixes {n_tumour:,} tumour cells ({', '.join(tumour[:3])}) "
                f"and {n_other:,} others; to take only the former, add "
                + " ".join(f"--where '{column}={word}'" for word in tumour[:3])
            )
    return ""


def confounded(labels: np.ndarray, groups: np.ndarray) -> str:
    """Return which class comes from a single group, in words, or ``""``.

    Parameters
    ----------
    labels, groups : (n,) str
        ``labels`` as :class:`scdrugmap.data.labels.Labels` has them; ``""`` is left out.
    """
    for word in (SENSITIVE, RESISTANT):
        own = set(groups[labels == word])
        if len(own) == 1:
            return f"all {word} cells come from one group ({own.pop()})"
    return ""


def _is_tumour(word: str) -> bool:
    folded = word.casefold()
    return _TUMOUR.search(folded) is not None and _NOT_TUMOUR.search(folded) is None


def _value_counts(column: pd.Series, most: int) -> dict[str, int] | None:
    """Return cells per value, the commonest first; None if there are too many values."""
    if column.nunique() > most:
        return None
    counts = column.value_counts()
    return {str(value): int(n) for value, n in counts.items() if n}

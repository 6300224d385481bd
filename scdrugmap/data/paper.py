"""The 60 datasets of the paper: what its two supplementary tables say, corrected where it is plain.

``paper_datasets.csv`` holds the facts as published, ``paper_corrections.csv`` what is read otherwise
and why; a doubt without an answer stays in the notes of a dataset. Names are the collection's letter
and the number of the dataset in it (``P01`` to ``P36`` primary, ``E01`` to ``E24`` external): the
paper's own names repeat.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

COUNTS = (
    "n_samples_resistant",
    "n_samples_sensitive",
    "n_samples_other",
    "n_samples_total",
    "n_cells",
    "n_cells_sensitive",
    "n_cells_resistant",
)
"""Columns of whole numbers; None where the paper does not tell."""

_KEY = "dataset_uid"
_TISSUE, _TISSUE_TEXT = "tissue", "tissue_source_text"
_NAMES_MERGED = "two names of one kind of tissue"

_BETWEEN = re.compile(r"\s*(?:\+|\(|\)|\bor\b|\band\b|\bcombined with\b|,)\s*", re.IGNORECASE)
_SAME_DRUG = {
    "5-fu": "5-fluorouracil",
    "pd-1": "anti-pd-1",
    "cyclin-dependent kinase 4/6 inhibitors": "cdk4/6 inhibitor",
    "cdk4/6is": "cdk4/6 inhibitor",
}


@dataclass(frozen=True)
class Correction:
    """A fact that is read otherwise than it was published."""

    column: str
    source: str
    corrected: str
    reason: str


@dataclass(frozen=True)
class PaperDataset:
    """One of the paper's datasets.

    Attributes
    ----------
    name : str
        ``P01`` to ``E24``.
    facts : dict
        Corrected facts by column of ``paper_datasets.csv``; numbers of cells and samples are int
        or None.
    components : frozenset of str
        Drugs of the regimen, in lower case.
    corrections : tuple of Correction
    notes : tuple of str
        What is doubtful about the published facts.
    """

    name: str
    facts: dict[str, str | int | None]
    components: frozenset[str]
    corrections: tuple[Correction, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        facts = self.facts
        return f"{facts['cancer_type_level2'] or facts['cancer_type_level1']}, {facts['regimen']}"


@lru_cache(maxsize=1)
def paper_datasets() -> dict[str, PaperDataset]:
    """Return the 60 datasets by name, in the order of the paper's tables."""
    corrections: dict[str, list[Correction]] = {}
    for row in _read("paper_corrections.csv"):
        correction = Correction(row["column"], row["source"], row["corrected"], row["reason"])
        corrections.setdefault(row[_KEY], []).append(correction)
    return {
        row[_KEY]: _dataset(row, corrections.get(row[_KEY], []))
        for row in _read("paper_datasets.csv")
    }


def _dataset(row: dict[str, str], corrections: list[Correction]) -> PaperDataset:
    published = dict(row)
    name, notes = published.pop(_KEY), published.pop("notes")
    tissue, source = published[_TISSUE], published.pop(_TISSUE_TEXT)
    if tissue != source:
        corrections = [Correction(_TISSUE, source, tissue, _NAMES_MERGED), *corrections]
    facts: dict[str, str | int | None] = {}
    for column, text in published.items():
        facts[column] = (int(text) if text else None) if column in COUNTS else text
    for correction in corrections:
        facts[correction.column] = correction.corrected
    return PaperDataset(
        name,
        facts,
        regimen_components(str(facts["regimen"])),
        tuple(corrections),
        tuple(note for note in notes.split(" | ") if note),
    )


def regimen_components(regimen: str) -> frozenset[str]:
    """Return the drugs of a regimen, in lower case.

    ``a + b``, ``a and b``, ``a or b``, ``a (b + c)`` and ``a combined with b`` name several; ``NA``
    and the empty text none.

    Parameters
    ----------
    regimen : str
        As "oxaliplatin and 5-FU".
    """
    parts = (part.strip().lower() for part in _BETWEEN.split(regimen))
    return frozenset(_SAME_DRUG.get(part, part) for part in parts if part not in ("", "na"))


def _read(name: str) -> list[dict[str, str]]:
    text = resources.files("scdrugmap.data").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))

"""Whom to cite for a run: this software, the paper it re-examines, and the authors of each model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scdrugmap import __version__

if TYPE_CHECKING:
    from scdrugmap.run.record import ModelRecord, RunRecord

TOOL_TITLE = "scDrugMap"
TOOL_AUTHORS = "The scDrugMap developers"
TOOL_LICENCE = "Apache-2.0"
PAPER_TITLE = "scDrugMap: benchmarking large foundation models for drug response prediction"
PAPER_NOTES = "arXiv 2505.05612; Nature Communications 2025"

_YEAR = re.compile(r"\((\d{4})\)")
_DOI = re.compile(r"\bdoi:\s*(10\.\S+?)(?=[;,.]?(?:\s|$))")
_SPECIAL = re.compile(r"[&%$#_]")
_REPLACED = {"\\": "/", "{": "(", "}": ")", "~": "-", "^": ""}


@dataclass(frozen=True)
class Citation:
    """One work to cite.

    Attributes
    ----------
    key : str
        Of BibTeX: letters, digits, ``-`` and ``_``.
    text : str
        The whole reference as its plugin gives it.
    authors, title, journal, year, doi : str
        What could be read in `text`; empty where it could not.
    models : tuple of str
        The models that it stands for; none: the software or the paper.
    url, licence : str
    """

    key: str
    text: str
    authors: str = ""
    title: str = ""
    journal: str = ""
    year: str = ""
    doi: str = ""
    models: tuple[str, ...] = ()
    url: str = ""
    licence: str = ""


def citations(run: RunRecord) -> list[Citation]:
    """Return what a run must cite; models of one citation stand together."""
    version = str(run.provenance.get("scdrugmap", __version__))
    found = [
        Citation(
            "scdrugmap",
            f"{TOOL_AUTHORS}. {TOOL_TITLE}, version {version}.",
            authors=TOOL_AUTHORS,
            title=f"{TOOL_TITLE} (version {version})",
            licence=TOOL_LICENCE,
        ),
        Citation(
            "scdrugmap-paper",
            f"{PAPER_TITLE}. {PAPER_NOTES}.",
            title=PAPER_TITLE,
            journal="Nature Communications",
            year="2025",
            doi="10.1038/s41467-025-67481-2",
            url="https://arxiv.org/abs/2505.05612",
        ),
    ]
    by_text: dict[str, list[str]] = {}
    about: dict[str, ModelRecord] = {}
    for model in run.models:
        if model.citation:
            by_text.setdefault(model.citation, []).append(model.model or model.name)
            about.setdefault(model.citation, model)
    for text, names in by_text.items():
        models = tuple(dict.fromkeys(names))
        first = about[text]
        key = re.sub(r"[^A-Za-z0-9_-]+", "-", models[0]).strip("-") or "model"
        found.append(_read(key, text, models, first.homepage, first.licence))
    return found


def _read(key: str, text: str, models: tuple[str, ...], url: str, licence: str) -> Citation:
    """Read a reference written as ``Authors. Title. Journal 1, 2-3 (2024). doi:10...``."""
    url = url if url.startswith("https://") else ""
    plain = Citation(key, text, models=models, url=url, licence=licence)
    authors, _, rest = text.partition(". ")
    title, _, after = rest.partition(". ")
    year, doi = _YEAR.search(text), _DOI.search(text)
    if not rest or not year:
        return plain
    journal = _DOI.sub("", after.partition(";")[0])
    journal = _YEAR.sub("", journal.partition("https://")[0]).strip(" .,")
    return Citation(
        key,
        text,
        authors=authors,
        title=_YEAR.sub("", title).strip(" ."),
        journal=journal,
        year=year[1],
        doi=doi[1] if doi else "",
        models=models,
        url=url,
        licence=licence,
    )


def bibtex(works: list[Citation]) -> str:
    """Return works as a BibTeX file; a text that could not be read apart is a note."""
    return "\n".join(_entry(work) for work in works)


def _entry(work: Citation) -> str:
    fields = {
        "author": _authors(work.authors),
        "title": f"{{{_escaped(work.title)}}}" if work.title else "",
        "journal": _escaped(work.journal),
        "year": work.year,
        "doi": work.doi,
        "url": "" if work.doi else work.url,
        "note": "" if work.title else _escaped(work.text),
    }
    kind = "article" if work.journal else ("software" if work.key == "scdrugmap" else "misc")
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{work.key},\n" + ",\n".join(lines) + "\n}\n"


def _authors(text: str) -> str:
    """Turn ``Cui H, Wang C et al`` into ``Cui, H and Wang, C and others``."""
    names = [
        name for name in re.split(r",\s+|\s+and\s+", text.replace(" et al", ", et al")) if name
    ]
    found = []
    for name in names:
        surname, _, initials = name.rpartition(" ")
        if name == "et al":
            found.append("others")
        elif surname and initials.isupper() and len(initials) <= 4:
            found.append(f"{_escaped(surname)}, {initials}")
        else:
            found.append(f"{{{_escaped(name)}}}")
    return " and ".join(found)


def _escaped(text: str) -> str:
    for character, other in _REPLACED.items():
        text = text.replace(character, other)
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def citation_file(run: RunRecord) -> str:
    """Return a ``CITATION.cff`` (1.2.0) of the software that made a run, with all references."""
    import json

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string

    software, *others = citations(run)
    lines = [
        "cff-version: 1.2.0",
        'message: "If you use these results, please cite the software and the works below."',
        f"title: {quoted(TOOL_TITLE)}",
        "type: software",
        f"license: {software.licence}",
        "authors:",
        f"  - name: {quoted(TOOL_AUTHORS)}",
        f"version: {quoted(str(run.provenance.get('scdrugmap', __version__)))}",
        "references:",
    ]
    for work in others:
        kind = "article" if work.journal else "generic"
        lines += [
            f"  - type: {kind}",
            f"    title: {quoted(work.title or work.text)}",
            "    authors:",
        ]
        lines += [f"      - name: {quoted(name)}" for name in _names(work)]
        for name, value in (("journal", work.journal), ("doi", work.doi), ("url", work.url)):
            if value:
                lines.append(f"    {name}: {quoted(value)}")
        if work.year:
            lines.append(f"    year: {work.year}")
        lines.append(f"    notes: {quoted(work.text)}")
    return "\n".join(lines) + "\n"


def _names(work: Citation) -> list[str]:
    return [name for name in re.split(r",\s+", work.authors) if name] or ["see notes"]

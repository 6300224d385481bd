"""Refuse a runtime dependency whose licence does not go with ours.

    python scripts/check_licences.py            # lists all and ends with 1 if one is refused

Walks what the core (with the extras for users) and the plugins need at run time, and all that
those need, as the installed distributions say it; tools of development and extras of plugins are
left out. What counts is what a distribution declares of itself: libraries inside of its wheel, such
as the runtime of the Fortran compiler in those of NumPy and SciPy (GPL with an exception for what
is compiled with it), are not seen here.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

DEVELOPMENT = frozenset({"dev", "docs"})
"""Extras of ours that no user installs."""

PERMITTED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *("CNRI-Python", "HPND", "ISC", "LLVM-exception", "MIT", "MIT-CMU", "PSF-2.0"),
        *("Python-2.0", "Unlicense", "Zlib"),
    }
)
"""Licences, by their SPDX names, that ask for no more than a notice."""

WITH_REASON = {
    "MPL-2.0": "copyleft file by file: using and shipping unchanged modules asks for nothing more",
    "LGPL": "may be used as a library that a user can replace, which every Python module is",
}
"""Licences that ask for more and are taken all the same; a name stands for its versions too."""

BY_NAME = {
    "skops": ("MIT", "its metadata say `OSI Approved`; the licence in its wheel is MIT"),
    "scverse-misc": ("BSD-3-Clause", "its metadata hold the text of the licence, not its name"),
}
"""Distributions whose metadata do not name their licence: what it is, and how that is known."""

OF_HARDWARE = re.compile(r"(nvidia|cuda)-.*")
"""NVIDIA's libraries, under NVIDIA's own terms: torch's builds for their cards need them, torch's
builds for processors do not, and nothing of ours names them."""

_OF_CLASSIFIER = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
}
_OF_TEXT = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
}
_NAME = re.compile(r"[A-Za-z0-9.+-]+")
_WORDS = frozenset({"AND", "OR", "WITH"})


@dataclass(frozen=True)
class Finding:
    """What is known of one dependency.

    Attributes
    ----------
    name : str
    version : str
    licence : str
        As an SPDX expression; ``""``: not known.
    reason : str
        Why it is taken although it is not simply permitted.
    refused : str
        Why it is refused; ``""``: it is taken.
    """

    name: str
    version: str
    licence: str
    reason: str = ""
    refused: str = ""


def requirements() -> list[Requirement]:
    """Return what the core, its extras for users, and the plugins need at run time."""
    core = _project(ROOT / "pyproject.toml")
    extras = core["optional-dependencies"]
    lines = [line for name in sorted(extras.keys() - DEVELOPMENT) for line in extras[name]]
    for project in (core, *map(_project, sorted(ROOT.glob("plugins/*/pyproject.toml")))):
        lines += project["dependencies"]
    found = map(Requirement, lines)
    return [item for item in found if not canonicalize_name(item.name).startswith("scdrugmap")]


def _project(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))["project"]


def closure(wanted: Iterable[Requirement]) -> dict[str, metadata.Distribution | None]:
    """Return all that is needed, by name; None: it is not installed here."""
    found: dict[str, metadata.Distribution | None] = {}
    walked: set[tuple[str, str]] = set()
    waiting = [(item, "") for item in wanted] + [
        (item, extra) for item in wanted for extra in item.extras
    ]
    while waiting:
        item, extra = waiting.pop()
        name = canonicalize_name(item.name)
        if (name, extra) in walked or not _applies(item, ""):
            continue
        walked.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            continue
        for line in cast("metadata.Distribution", found[name]).requires or ():
            needed = Requirement(line)
            if _applies(needed, extra):
                bare = Requirement(line)
                bare.marker = None
                waiting += [(bare, inner) for inner in ("", *needed.extras)]
    return dict(sorted(found.items()))


def _applies(item: Requirement, extra: str) -> bool:
    return item.marker is None or item.marker.evaluate({"extra": extra})


def licence_of(fields: Message) -> str:
    """Return the licence that a distribution declares as an SPDX expression; ``""``: none."""
    if fields.get("License-Expression"):
        return str(fields["License-Expression"])
    text = str(fields.get("License") or "").strip()
    if len(text) < 80 and "\n" not in text:
        if text.lower() in _OF_TEXT:
            return _OF_TEXT[text.lower()]
        if text and all(_is_known(name) for name in _names(text)):
            return text
    classifiers = [
        str(line).rpartition(" :: ")[2]
        for line in fields.get_all("Classifier") or ()
        if str(line).startswith("License :: OSI Approved :: ")
    ]
    copyleft = [line for line in classifiers if "GPL" in line or "General Public" in line]
    if copyleft:
        return "LGPL" if all("Lesser" in line for line in copyleft) else "GPL"
    return " AND ".join(sorted({_OF_CLASSIFIER.get(line, line) for line in classifiers}))


def _names(expression: str) -> list[str]:
    return [name for name in _NAME.findall(expression) if name not in _WORDS]


def _is_known(name: str) -> bool:
    return name in PERMITTED or any(name.startswith(taken) for taken in WITH_REASON)


def judge(name: str, fields: Message) -> Finding:
    """Say whether a dependency is taken; every name of its expression must be."""
    version = str(fields.get("Version") or "")
    licence = licence_of(fields)
    if OF_HARDWARE.fullmatch(name):
        return Finding(name, version, licence, "a library for NVIDIA's cards, under their terms")
    if name in BY_NAME and not licence:
        licence, reason = BY_NAME[name]
        return Finding(name, version, licence, reason)
    if not licence:
        return Finding(name, version, "", refused="its metadata name no licence")
    strange = [part for part in _names(licence) if not _is_known(part)]
    if strange:
        return Finding(name, version, licence, refused=f"{strange[0]} is not on the list")
    reasons = [
        why
        for taken, why in WITH_REASON.items()
        for part in _names(licence)
        if part.startswith(taken)
    ]
    return Finding(name, version, licence, "; ".join(dict.fromkeys(reasons)))


def findings() -> list[Finding]:
    """Return what is known of every dependency, sorted by name."""
    return [
        Finding(name, "", "", refused="it is not installed, so nobody looked at it")
        if found is None
        else judge(name, cast("Message", found.metadata))
        for name, found in closure(requirements()).items()
    ]


def main() -> None:
    """List all dependencies; end with 1 if one is refused."""
    refused = []
    for item in findings():
        note = item.refused or item.reason
        print(f"{item.name} {item.version}: {item.licence or '?'}{f' ({note})' if note else ''}")
        if item.refused:
            refused.append(item.name)
    if refused:
        sys.exit(f"refused: {', '.join(refused)}")


if __name__ == "__main__":
    main()

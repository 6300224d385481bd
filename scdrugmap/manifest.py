"""``manifest.json`` of an imported folder of weights: where it came from, and what it must be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from scdrugmap.errors import WeightsError
from scdrugmap.hashes import FileRecord, file_record, forget_hashes
from scdrugmap.modelkit.published import PublishedFolder

__all__ = [
    "CONFIG",
    "MANIFEST",
    "TENSORS",
    "VOCABULARY",
    "FileRecord",
    "Manifest",
    "file_record",
    "forget_hashes",
    "read_manifest",
]

MANIFEST = "manifest.json"
CONFIG = "config.json"
VOCABULARY = "vocabulary.json"
TENSORS = "model.safetensors"


class Manifest(BaseModel):
    """What is known of an imported folder; ``published`` holds the hashes that are pinned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str
    name: str
    variant: str
    digest: str
    published: dict[str, FileRecord]
    files: dict[str, FileRecord]
    licence: str
    commercial_use: bool | None
    homepage: str
    n_tensors: int
    n_parameters: int
    imported_at: str
    scdrugmap: str

    @field_validator("published")
    @classmethod
    def _inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        _refuse_unsafe(files)
        return files

    @field_validator("files")
    @classmethod
    def _ours(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        expected = (CONFIG, VOCABULARY, TENSORS)
        if sorted(files) != sorted(expected):
            raise ValueError(f"it names {_shown(files)}, expected {_shown(expected)}")
        return files


def _refuse_unsafe(names: Iterable[str]) -> None:
    """Raise ValueError for names that leave the folder, or are one on disks that ignore case."""
    seen: dict[str, str] = {}
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if not all(parts) or {".", ".."} & set(parts) or ":" in name or "\0" in name:
            raise ValueError(f"{name[:80]!r} is no path inside the folder")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(f"{other[:80]!r} and {name[:80]!r} differ in case only")


def _shown(names: Iterable[str]) -> str:
    return ", ".join(sorted(repr(name[:80]) for name in names)[:5]) or "nothing"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an imported folder.

    Raises
    ------
    WeightsError
        It is missing or damaged, or names files outside the folder.
    """
    try:
        return Manifest.model_validate(PublishedFolder(folder).json(MANIFEST))
    except ValidationError as err:
        first = err.errors()[0]
        raise WeightsError(
            f"{folder / MANIFEST}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}",
            hint="import the weights again",
        ) from err

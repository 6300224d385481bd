"""``manifest.json`` of an imported folder of weights: where it came from, and what it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from scdrugmap.errors import WeightsError
from scdrugmap.files import hash_file
from scdrugmap.modelkit.published import PublishedFolder

MANIFEST = "manifest.json"
CONFIG = "config.json"
VOCABULARY = "vocabulary.json"
TENSORS = "model.safetensors"


class FileRecord(BaseModel):
    """Hash and size of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    n_bytes: int


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


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an imported folder.

    Raises
    ------
    WeightsError
        It is missing or damaged.
    """
    try:
        return Manifest.model_validate(PublishedFolder(folder).json(MANIFEST))
    except ValidationError as err:
        first = err.errors()[0]
        raise WeightsError(
            f"{folder / MANIFEST}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}",
            hint="import the weights again",
        ) from err


_hashed: dict[Path, tuple[tuple[int, int, int], FileRecord]] = {}


def file_record(path: Path) -> FileRecord:
    """Hash a file; the same one (by inode, size and time of change) once per process."""
    path = path.resolve()
    state = path.stat()
    seen = (state.st_ino, state.st_size, state.st_mtime_ns)
    if path not in _hashed or _hashed[path][0] != seen:
        _hashed[path] = (seen, FileRecord(sha256=hash_file(path), n_bytes=state.st_size))
    return _hashed[path][1]


def forget_hashes() -> None:
    """Hash every file again when it is used next."""
    _hashed.clear()

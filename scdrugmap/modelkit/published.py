"""Read what authors publish: only inside one folder, only data, never code.

A plugin's ``read_published(folder, variant)`` turns a :class:`PublishedFolder` into
:class:`Weights`; the core does the rest (finding, hashing, converting, pinning).
"""

from __future__ import annotations

import json
import pickle
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.files import resource_error

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_JSON_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
_MOST_SHARING = 2  # tensors of a file may overlap (tied weights are stored once), but not more

# What torch, zipfile and json raise on damaged or hostile files, as seen with torch 2.13.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Weights:
    """What a network is built from: the same for a published and for an imported folder.

    Parameters
    ----------
    config : mapping
        Sizes and settings the network is built with; JSON-able.
    vocabulary : mapping
        The names the model knows, in whatever form its tokenizer needs; JSON-able.
    tensors : mapping of str to Tensor
        By the names of the plugin's own modules.
    source : str
        The folder, for error messages.
    """

    config: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    source: str


@dataclass
class PublishedFolder:
    """A folder of weights as its authors ship it.

    Files are opened by their path inside the folder; symbolic links may not lead out of it. Every
    file that was read is remembered in ``opened``, so that its hash can be recorded.

    Parameters
    ----------
    root : Path
        The folder.
    """

    root: Path
    opened: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise WeightsError(
                f"{self.root} is {'no folder' if self.root.exists() else 'not there'}",
                hint="name the folder that holds the model's files",
            )

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Return the path of a file, for a reader of the plugin's own.

        Raises
        ------
        WeightsError
            It is missing, or a link that leads out of the folder.
        ResourceError
            It may not be read.
        """
        root = self.root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise WeightsError(
                f"{self.root / name} leads out of the folder, to {path}",
                hint=f"copy the files themselves: cp -rL {self.root} FOLDER",
            )
        if not path.is_file():
            there = ", ".join(sorted(entry.name for entry in self.root.iterdir())[:12])
            raise WeightsError(
                f"{self.root}: {name} is missing (there is: {there or 'nothing'})",
                hint="fetch all files of the model into one folder",
            )
        try:
            with path.open("rb"):
                pass
        except OSError as err:
            raise (resource_error(err, path) or err) from err
        self.opened[name] = path
        return path

    def names(self, pattern: str) -> list[str]:
        """Return the files that match a glob pattern, as sorted paths inside the folder."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.glob(pattern)
            if path.is_file()
        )

    def first(self, *names: str) -> str:
        """Return the first of several names that is there.

        Raises
        ------
        WeightsError
            None is.
        """
        for name in names:
            if (self.root / name).is_file():
                return name
        raise WeightsError(
            f"{self.root}: none of {', '.join(names)} is there",
            hint="fetch all files of the model into one folder",
        )

    def text(self, name: str) -> str:
        """Read a UTF-8 text file.

        Raises
        ------
        WeightsError
            It is missing, too large, or no UTF-8 text.
        """
        return read_text(self.path(name))

    def json(self, name: str) -> Any:
        """Read a JSON file; see :func:`read_json` for the errors."""
        return read_json(self.path(name))

    def torch(self, name: str) -> Any:
        """Read what ``torch.save`` wrote; see :func:`read_torch` for the errors."""
        return read_torch(self.path(name))

    def safetensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file; see :func:`read_safetensors` for the errors."""
        return read_safetensors(self.path(name))

    def array(self, name: str) -> np.ndarray:
        """Read a ``.npy`` file; see :func:`read_array` for the errors."""
        return read_array(self.path(name))

    def pickle(self, name: str) -> Any:
        """Read a pickled dictionary; see :func:`scdrugmap.safe_pickle.load` for the errors."""
        from scdrugmap.safe_pickle import load

        return load(self.path(name))


def read_text(path: Path) -> str:
    """Read a UTF-8 text file of at most 256 MiB.

    Raises
    ------
    WeightsError
        It is larger, or no UTF-8 text.
    """
    n_bytes = path.stat().st_size
    if n_bytes > MAX_JSON_BYTES:
        raise WeightsError(f"{path} has {n_bytes:,} bytes; at most {MAX_JSON_BYTES:,} are read")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise WeightsError(f"{path} is no UTF-8 text: {err}") from err


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    WeightsError
        It is damaged, too large, or names a key twice.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise WeightsError(
            f"{path} is no proper JSON: {err}", hint="was the download complete?"
        ) from err


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} occurs twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def read_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote: tensors, numbers and texts in dicts and lists; no code.

    Tensors are memory-mapped where the file allows it.

    Raises
    ------
    WeightsError
        The file holds anything else (it is not run), is damaged or compressed, or a tensor claims
        more elements than are stored.
    """
    import torch

    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type for entry in archive.infolist()):
                    raise WeightsError(
                        f"{path} is a compressed archive", hint="save it again with torch.save"
                    )
        with warnings.catch_warnings():
            # Of the pickle protocol and of old storage classes; the content is checked below.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as err:
        reason = str(err).split("Check the documentation")[0]
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run: {_line(reason)}",
            hint="of a whole saved model, export the tensors: torch.save(model.state_dict(), FILE)",
        ) from err
    except _DAMAGE as err:
        raise WeightsError(
            f"{path} cannot be read ({path.stat().st_size:,} bytes): {_line(err)}",
            hint="was the download complete?",
        ) from err
    tensors = dict(_tensors(content, ""))
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise WeightsError(f"{path}: {name} is no plain tensor ({tensor.layout})")
        n_bytes = tensor.numel() * tensor.element_size()
        total += n_bytes
        if n_bytes > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: {name} claims {n_bytes:,} bytes, "
                f"{tensor.untyped_storage().nbytes():,} are stored"
            )
    if total > _MOST_SHARING * path.stat().st_size:
        raise WeightsError(
            f"{path}: its tensors claim {total:,} bytes, the file has {path.stat().st_size:,}"
        )
    return content


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of nested dicts and lists with their dotted names."""
    import torch

    if isinstance(content, torch.Tensor):
        yield name or "the file", content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _tensors(value, f"{name}.{number}" if name else str(number))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, memory-mapped.

    Raises
    ------
    WeightsError
        Its header is too large, names too many tensors, or promises other bytes than there are.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, *_DAMAGE) as err:
        raise WeightsError(
            f"{path} cannot be read: {_line(err)}", hint="was the download complete?"
        ) from err


def _check_header(path: Path) -> None:
    """Look at a safetensors header before the library does: 300,000 empty tensors take a minute."""
    n_bytes = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if n_bytes < 8 or length > n_bytes - 8:
            raise WeightsError(
                f"{path} has {n_bytes:,} bytes and should have more",
                hint="was the download complete?",
            )
        if length > MAX_HEADER_BYTES:
            raise WeightsError(
                f"{path}: its header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read"
            )
        header = handle.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        complete = int(8 + length + end)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise WeightsError(f"{path}: its header is damaged: {_line(err)}") from err
    if len(entries) > MAX_TENSORS:
        raise WeightsError(
            f"{path} names {len(entries):,} tensors; at most {MAX_TENSORS:,} are read"
        )
    if complete != n_bytes:
        raise WeightsError(
            f"{path} has {n_bytes:,} bytes and should have {complete:,}",
            hint="was the download complete?",
        )


def read_array(path: Path) -> np.ndarray:
    """Read a ``.npy`` file of numbers or texts, memory-mapped; objects are refused.

    Raises
    ------
    WeightsError
        It holds objects, or is damaged.
    """
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (SyntaxError, tokenize.TokenError, *_DAMAGE) as err:
        raise WeightsError(f"{path} cannot be read as an array: {_line(err)}") from err


def _line(err: object) -> str:
    return " ".join(str(err).split())[:300]

"""Read single files of data from strangers: texts, tensors and arrays; never code.

Each reader takes the path that messages name, and where the file is open already (``at``), so that
what was hashed is what is read, whatever happens to the path meanwhile.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scdrugmap import safe_pickle
from scdrugmap.errors import WeightsError
from scdrugmap.pickle_depth import TupleDepth

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_JSON_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
_MOST_SHARING = 2  # tensors of a file may overlap (tied weights are stored once), but not more
_PICKLES = 5  # of a file that torch wrote before it wrote zip archives

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


def read_text(path: Path, at: Path | None = None) -> str:
    """Read a UTF-8 text file of at most 256 MiB.

    Raises
    ------
    WeightsError
        It is larger, or no UTF-8 text.
    """
    at = at or path
    n_bytes = at.stat().st_size
    if n_bytes > MAX_JSON_BYTES:
        raise WeightsError(f"{path} has {n_bytes:,} bytes; at most {MAX_JSON_BYTES:,} are read")
    try:
        return at.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise WeightsError(f"{path} is no UTF-8 text: {err}") from err


def read_json(path: Path, at: Path | None = None) -> Any:
    """Read a JSON file.

    Raises
    ------
    WeightsError
        It is damaged, too large, or names a key twice.
    """
    try:
        text = read_text(path, at)
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
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


def read_torch(path: Path, at: Path | None = None) -> Any:
    """Read what ``torch.save`` wrote: tensors, numbers and texts in dicts and lists; no code.

    Tensors are memory-mapped where the file allows it.

    Raises
    ------
    WeightsError
        The file holds anything else (it is not run), is damaged or compressed, or a tensor claims
        more elements than are stored.
    """
    import torch

    at = at or path
    n_bytes = at.stat().st_size
    try:
        zipped = zipfile.is_zipfile(at)
        _look_through(path, at, zipped=zipped)
        with warnings.catch_warnings():
            # Of the pickle protocol and of old storage classes; the content is checked below.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(at, map_location="cpu", weights_only=True, mmap=zipped or None)
        tensors = dict(_tensors(content, ""))
    except pickle.UnpicklingError as err:
        reason = str(err).split("Check the documentation")[0]
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run: {_line(reason)}",
            hint="of a whole saved model, export the tensors: torch.save(model.state_dict(), FILE)",
        ) from err
    except _DAMAGE as err:
        raise WeightsError(
            f"{path} cannot be read ({n_bytes:,} bytes): {_line(err)}",
            hint="was the download complete?",
        ) from err
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise WeightsError(f"{path}: {name} is no plain tensor ({tensor.layout})")
        claimed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > stored:
            raise WeightsError(f"{path}: {name} claims {claimed:,} bytes, {stored:,} are stored")
    if total > _MOST_SHARING * n_bytes:
        raise WeightsError(f"{path}: its tensors claim {total:,} bytes, the file has {n_bytes:,}")
    return content


def _look_through(path: Path, at: Path, *, zipped: bool) -> None:
    """Refuse what torch would unpack or crash on before it sees the file."""
    if not zipped:
        with at.open("rb") as file:
            for _ in range(_PICKLES):
                if not file.peek(1):
                    break
                _follow(file)
        return
    with zipfile.ZipFile(at) as archive:
        members = archive.infolist()
        if any(member.compress_type for member in members):
            raise WeightsError(
                f"{path} is a compressed archive", hint="save it again with torch.save"
            )
        for member in members:
            if not member.filename.lower().endswith(".pkl"):  # torch does not mind the case
                continue
            if member.file_size > safe_pickle.MAX_BYTES:
                raise WeightsError(
                    f"{path}: {member.filename} has {member.file_size:,} bytes; at most "
                    f"{safe_pickle.MAX_BYTES:,} are read"
                )
            with archive.open(member) as file:
                _follow(file)


def _follow(file: IO[bytes]) -> None:
    """Follow one pickle to its end."""
    depth = TupleDepth()
    try:
        for instruction, argument, _ in pickletools.genops(file):
            depth.follow(instruction, argument)
    except ValueError as err:
        raise pickle.UnpicklingError(str(err)) from err


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


def read_safetensors(path: Path, at: Path | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, memory-mapped.

    Raises
    ------
    WeightsError
        Its header is too large, names too many tensors, or promises other bytes than there are.
    """
    from safetensors import SafetensorError, safe_open

    at = at or path
    _check_header(path, at)
    try:
        with safe_open(at, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, *_DAMAGE) as err:
        raise WeightsError(
            f"{path} cannot be read: {_line(err)}", hint="was the download complete?"
        ) from err


def _check_header(path: Path, at: Path) -> None:
    """Look at a safetensors header before the library does: 300,000 empty tensors take a minute."""
    n_bytes = at.stat().st_size
    with at.open("rb") as handle:
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
    _check_number(path, header.count(b"data_offsets"))  # before it is parsed
    try:
        entries = json.loads(header, object_pairs_hook=_distinct)
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        complete = int(8 + length + end)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as err:
        raise WeightsError(f"{path}: its header is damaged: {_line(err)}") from err
    _check_number(path, len(entries))
    if complete != n_bytes:
        raise WeightsError(
            f"{path} has {n_bytes:,} bytes and should have {_line(f'{complete:,}')}",
            hint="was the download complete?",
        )


def _check_number(path: Path, n_tensors: int) -> None:
    if n_tensors > MAX_TENSORS:
        raise WeightsError(f"{path} names {n_tensors:,} tensors; at most {MAX_TENSORS:,} are read")


def read_array(path: Path, at: Path | None = None) -> np.ndarray:
    """Read a ``.npy`` file of numbers or texts, memory-mapped; objects are refused.

    Raises
    ------
    WeightsError
        It holds objects or several arrays, or is damaged.
    """
    import numpy as np

    try:
        with np.errstate(over="raise"):  # of a shape that no file has
            array = np.load(at or path, mmap_mode="r", allow_pickle=False)
    except (SyntaxError, tokenize.TokenError, *_DAMAGE) as err:
        raise WeightsError(f"{path} cannot be read as an array: {_line(err)}") from err
    if not isinstance(array, np.ndarray):
        array.close()
        raise WeightsError(f"{path} cannot be read as an array: it is an archive of several")
    return array


def _line(err: object) -> str:
    return " ".join(str(err).split())[:300]

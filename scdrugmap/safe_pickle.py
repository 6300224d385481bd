"""Read published pickled dictionaries without running anything that is in them.

A pickle is a program. Here it is first looked through: only instructions that make dicts, lists,
texts and numbers are let through. Then it is run with stand-ins for the few NumPy names that
numbers are pickled with; every other name is an error. NumPy's own unpickling code is never called.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import WeightsError
from scdrugmap.pickle_depth import TupleDepth

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 64 * 2**20
_MAX_DEPTH = 32
_LONGEST_REASON = 300  # characters: reasons may quote the file

_REFUSED = frozenset(
    {
        "ADDITEMS",
        "BINPERSID",
        "EMPTY_SET",
        "EXT1",
        "EXT2",
        "EXT4",
        "FROZENSET",
        "INST",
        "NEWOBJ",
        "NEWOBJ_EX",
        "NEXT_BUFFER",
        "OBJ",
        "PERSID",
        "READONLY_BUFFER",
    }
)
_NUMBER = re.compile(r"b1|[iu][1248]|f[248]")
_BYTE_ORDERS = ("<", ">", "|", "=")

# What damaged or hostile pickles raise, here and in the standard unpickler.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def load(path: Path, at: Path | None = None) -> Any:
    """Read a pickle of dicts, lists, texts, numbers and number arrays.

    NumPy scalars become Python numbers, tuples and ordered dicts stay what they look like.

    Parameters
    ----------
    path : Path
        File of at most 64 MiB.
    at : Path, optional
        Where it is open already; messages name `path`.

    Returns
    -------
    dict, list, tuple, str, bytes, int, float, bool, None or numpy.ndarray

    Raises
    ------
    WeightsError
        The pickle holds anything else (it is not run), is damaged, or is too large.
    """
    at = at or path
    n_bytes = at.stat().st_size
    if n_bytes > MAX_BYTES:
        raise WeightsError(f"{path} has {n_bytes:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return loads(at.read_bytes())
    except _DAMAGE as err:
        raise WeightsError(
            f"{path} holds more than dictionaries of numbers and texts, or is damaged; nothing in "
            f"it was run: {' '.join(str(err).split())[:_LONGEST_REASON]}",
            hint="fetch the file again from its authors",
        ) from err


def loads(data: bytes) -> Any:
    """Read a pickle from memory; see :func:`load`.

    Raises
    ------
    pickle.UnpicklingError, ValueError and the like
        The pickle is refused or damaged.
    """
    _look_through(data)
    return _plain(_Unpickler(io.BytesIO(data)).load(), 0, {})


def _look_through(data: bytes) -> None:
    """Refuse instructions that make objects or sets, deep tuples, and gigabytes of memo."""
    depth = TupleDepth()
    for number, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if instruction.name in _REFUSED:
            raise pickle.UnpicklingError(f"instruction {instruction.name}")
        if instruction.name.endswith("PUT") and isinstance(argument, int) and argument > number:
            raise pickle.UnpicklingError(f"memo number {argument}")
        depth.follow(instruction, argument)


class _Name:
    """What a permitted name stands for: can be called, cannot be changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a name is given a state")


class _Kind:
    """Stand-in of ``numpy.dtype``: kind and byte order of numbers."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            kind = repr(code[:80]) if isinstance(code, str) else type(code).__name__
            raise pickle.UnpicklingError(f"values of type {kind}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in _BYTE_ORDERS or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a structured type")
        self.order = order

    def read(self, data: Any) -> np.ndarray:
        """Return the numbers stored in bytes."""
        import numpy as np

        return np.frombuffer(data, np.dtype(self.order + self.code))


class _Array:
    """Stand-in of an array until its state is read."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.value = _array(data, kind, shape, "F" if fortran else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("an array without a type")
    native = kind.read(data).reshape(shape, order=order)
    return native.astype(native.dtype.newbyteorder("="))


def _scalar(kind: Any, data: Any) -> Any:
    return _array(data, kind, (), "C").item()


def _bytes(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, with which protocols below 3 write bytes."""
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _no_bytes() -> bytes:
    """Stand in for ``bytes()``, which they call for empty ones."""
    return b""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("__builtin__", "bytes"): _no_bytes,
    ("_codecs", "encode"): _bytes,
    ("collections", "OrderedDict"): dict,
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): make
        for core in ("core", "_core")  # before and since NumPy 2
        for module, name, make in (
            ("multiarray", "scalar", _scalar),
            ("multiarray", "_reconstruct", _Array),
            ("numeric", "_frombuffer", _array),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """Looks names up in the table above only."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Name(_NAMES[module, name])


def _plain(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """Return the value without stand-ins; what occurs several times is converted once."""
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError(f"more than {_MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if id(value) in seen:
        return seen[id(value)]
    import numpy as np

    plain: Any
    if isinstance(value, dict):
        plain = {_key(key): _plain(entry, depth + 1, seen) for key, entry in value.items()}
    elif isinstance(value, list | tuple):
        plain = type(value)(_plain(entry, depth + 1, seen) for entry in value)
    elif isinstance(value, _Array) and value.value is not None:
        plain = value.value
    elif isinstance(value, np.ndarray):
        plain = value
    else:
        raise pickle.UnpicklingError(f"a value of type {type(value).__name__}")
    seen[id(value)] = plain
    return plain


def _key(key: Any) -> Any:
    if not isinstance(key, str | int):
        raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")
    return key

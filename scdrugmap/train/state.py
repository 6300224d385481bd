"""Store what an estimator learnt, without a pickle: arrays, numbers and text in skops' format.

The reader looks at every node before skops does, and takes only the few kinds listed here; the
writer leaves nothing in that changes from run to run, so that equal states give equal bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from scdrugmap.errors import DataError
from scdrugmap.train.archive import Archive, write_archive

_SCHEMA = "schema.json"
_MOST_BYTES = 1 << 28
_MOST_SCHEMA_BYTES = 1 << 20

TRUSTED_NODES = frozenset(
    {
        # (loader, module, class) of the nodes that a state may consist of
        ("DictNode", "builtins", "dict"),
        ("ListNode", "builtins", "list"),
        ("TypeNode", "builtins", "str"),
        ("JsonNode", "builtins", "str"),
        ("NdArrayNode", "numpy", "ndarray"),
    }
)


def dump_state(state: Mapping[str, Any]) -> bytes:
    """Write the state of an estimator.

    Parameters
    ----------
    state : mapping of str to array, number, text or None
        Text arrays may be of any dtype but are stored as fixed-width unicode.

    Raises
    ------
    TypeError
        A value is of another kind; a fault of the estimator.
    """
    import skops.io

    plain = {name: _plain(name, value) for name, value in state.items()}
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(plain))) as archive:
        tree = json.loads(archive.read(_SCHEMA))
        files: dict[str, bytes] = {}
        _renumber(tree, archive, files, [0])
    files[_SCHEMA] = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
    return write_archive(files)


def load_state(data: bytes, where: str) -> dict[str, Any]:
    """Read what :func:`dump_state` wrote.

    Raises
    ------
    DataError
        The data are damaged, too large, or hold anything but arrays, numbers and text.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    archive = Archive(data, where, most_bytes=_MOST_BYTES)
    try:
        tree = json.loads(archive.read(_SCHEMA, most_bytes=_MOST_SCHEMA_BYTES))
        _check(tree, archive, where)
        state = skops.io.loads(data, trusted=[])
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        UntrustedTypesFoundException,
    ) as err:
        raise DataError(
            f"{where} is damaged: {' '.join(str(err).split())[:200]}",
            hint="train the predictor again",
        ) from err
    if not isinstance(state, dict):
        raise DataError(f"{where} holds a {type(state).__name__}, not a state")
    return state


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value.astype(str) if value.dtype.kind in "OU" else value)
        if value.dtype.kind in "biufU":
            return value
    elif value is None or isinstance(value, bool | int | float | str):
        return value
    kind = value.dtype if isinstance(value, np.ndarray) else type(value)
    raise TypeError(f"state {name!r} is of kind {kind}; use arrays, numbers or text")


def _renumber(
    node: Any, archive: zipfile.ZipFile, files: dict[str, bytes], counter: list[int]
) -> None:
    """Replace memory addresses, which name nodes and files, by running numbers."""
    if isinstance(node, list):
        for item in node:
            _renumber(item, archive, files, counter)
    elif isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = counter[0]
            counter[0] += 1
        if "file" in node and "__loader__" in node:
            content = archive.read(node["file"])
            node["file"] = f"{node['__id__']}.npy"
            files[node["file"]] = content
        for name in sorted(node):
            _renumber(node[name], archive, files, counter)


def _check(node: Any, archive: Archive, where: str) -> None:
    """Refuse a schema with any node that is not of a trusted kind."""
    kind = (node["__loader__"], node["__module__"], node["__class__"])
    if kind not in TRUSTED_NODES:
        raise DataError(
            f"{where} holds a {kind[1]}.{kind[2]} ({kind[0]}), which no predictor needs",
            hint="do not use a predictor from a source you do not trust",
        )
    if kind[0] == "DictNode":
        _check(node["key_types"], archive, where)
        for value in node["content"].values():
            _check(value, archive, where)
    elif kind[0] == "ListNode":
        for value in node["content"]:
            _check(value, archive, where)
    elif kind[0] == "NdArrayNode":
        if node["type"] != "numpy":
            raise DataError(f"{where} holds an array of objects")
        _check_array(archive.read(node["file"]), where)


def _check_array(content: bytes, where: str) -> None:
    """Refuse an array that declares another size than it has: NumPy would make room for it."""
    handle = io.BytesIO(content)
    version = np.lib.format.read_magic(handle)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(handle)
    n_bytes = dtype.itemsize
    for length in shape:
        n_bytes *= length
    if dtype.hasobject or n_bytes != len(content) - handle.tell():
        raise DataError(f"{where} holds an array whose size is not what it says")

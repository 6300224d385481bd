"""Decode the tables of a file (``obs``, ``var``) from HDF5 or zarr, checking every column.

Only the elements of one table are opened. Understood are the layouts of anndata 0.7 to 0.12, the
older ones with ``__categories``, and those before 0.7 that hold a table as one compound dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scdrugmap.errors import DataError

_STRINGS_PER_READ = 65_536
_AGAIN = "write the file again with a current anndata"
_DAMAGED = "the file is damaged: write it again with a current anndata"
_LEGACY_CATEGORIES = "__categories"
_NULLABLE = {
    "nullable-integer": None,
    "nullable-boolean": "boolean",
    "nullable-string-array": "string",
}


def is_group(node: Any) -> bool:
    """Tell whether an HDF5 or zarr node holds others."""
    return hasattr(node, "keys") and not hasattr(node, "shape")


def text(value: Any) -> str:
    """Return an attribute as text, whichever way it was stored; what is no UTF-8 is replaced."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")


def encoding(node: Any) -> str:
    """Return the ``encoding-type`` of a node, empty when there is none."""
    return text(node.attrs.get("encoding-type", ""))


def read_frame(node: Any, part: str, where: str) -> pd.DataFrame:
    """Read a table.

    Parameters
    ----------
    node : h5py or zarr group or dataset
        The table.
    part : str
        Its path inside the file (``obs``), for messages.
    where : str
        The file, for messages.

    Returns
    -------
    pandas.DataFrame
        Index as stored (text), one column per column of the file.

    Raises
    ------
    DataError
        An index or column is missing, of another length, of unknown encoding or damaged.
    """
    if not is_group(node):
        return _compound_frame(node, part, where)
    kind = encoding(node)
    if kind not in ("dataframe", ""):
        raise DataError(
            f"{where}: {part} is encoded as {kind!r}, not as a table",
            hint=_AGAIN,
        )
    index_name = _index_name(node, part, where)
    keys = set(node.keys())
    index = _column(node, index_name, part, where)
    ordered = [text(name) for name in np.asarray(node.attrs.get("column-order", ())).reshape(-1)]
    missing = [name for name in ordered if name not in keys]
    if missing:
        raise DataError(
            f"{where}: {part} lists a column {missing[0]!r} that is not there", hint=_DAMAGED
        )
    names = ordered or sorted(keys - {index_name, _LEGACY_CATEGORIES})
    columns: dict[str, Any] = {}
    for name in names:
        values = _column(node, name, part, where)
        if len(values) != len(index):
            raise DataError(
                f"{where}: column {name!r} of {part} has {len(values):,} rows, "
                f"expected {len(index):,}",
                hint=_DAMAGED,
            )
        columns[name] = values
    frame = pd.DataFrame(columns, index=pd.Index(np.asarray(index, dtype=object)))
    frame.index = frame.index.map(str) if len(frame) else frame.index.astype(object)
    return frame


def count_rows(node: Any, part: str, where: str) -> int:
    """Return the number of rows of a table without reading its columns.

    Raises
    ------
    DataError
        The table has no index.
    """
    if not is_group(node):
        return int(node.shape[0])
    index = node[_index_name(node, part, where)]
    return int((index["codes"] if is_group(index) else index).shape[0])


def unlisted_columns(node: Any) -> list[str]:
    """Return the members of a table that its list of columns leaves out; they are not read."""
    if not is_group(node):
        return []
    listed = [text(name) for name in np.asarray(node.attrs.get("column-order", ())).ravel()]
    known = {text(node.attrs.get("_index", "")), _LEGACY_CATEGORIES, *listed}
    return sorted(set(node.keys()) - known) if listed else []


def read_strings(node: Any, part: str, where: str) -> np.ndarray:
    """Read a dataset of text.

    Returns
    -------
    (n,) object str

    Raises
    ------
    DataError
        A text is not UTF-8; names its row.
    """
    if node.ndim != 1:
        raise DataError(f"{where}: {part} has {node.ndim} dimensions, expected 1", hint=_DAMAGED)
    out = np.empty(node.shape[0], dtype=object)
    for start in range(0, len(out), _STRINGS_PER_READ):
        values = node[start : start + _STRINGS_PER_READ].tolist()
        try:
            out[start : start + len(values)] = [
                v.decode() if isinstance(v, bytes) else str(v) for v in values
            ]
        except UnicodeDecodeError as err:
            row, seen = next((i, v) for i, v in enumerate(values) if not _is_utf8(v))
            raise DataError(
                f"{where}: {part} holds text that is not UTF-8 in row {start + row}: {seen[:40]!r}",
                hint="write the file again with names in UTF-8",
            ) from err
    return out


def _index_name(node: Any, part: str, where: str) -> str:
    stored = node.attrs.get("_index")
    if stored is None:
        raise DataError(
            f"{where}: {part} has no attribute _index, so the names of its rows are unknown",
            hint=_AGAIN,
        )
    name = text(stored)
    if name not in node:
        raise DataError(
            f"{where}: {part} names {name!r} as its index but has no such column", hint=_DAMAGED
        )
    return name


def _is_utf8(value: Any) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _column(group: Any, name: str, part: str, where: str) -> Any:
    node, label = group[name], f"{part}/{name}"
    if is_group(node):
        kind = encoding(node)
        if kind == "categorical":
            _need(node, ("codes", "categories"), label, where)
            categories = _array(node["categories"], f"{label}/categories", where)
            ordered = bool(node.attrs.get("ordered", False))
            return _categorical(
                _array(node["codes"], label, where), categories, ordered, label, where
            )
        if kind in _NULLABLE:
            _need(node, ("values", "mask"), label, where)
            values = _array(node["values"], label, where)
            mask = _array(node["mask"], label, where).astype(bool)
            if len(mask) != len(values):
                raise DataError(
                    f"{where}: {label} has {len(values):,} values but a mask of {len(mask):,}",
                    hint=_DAMAGED,
                )
            dtype = _NULLABLE[kind] or str(values.dtype).replace("i", "I", 1).replace("uI", "UI", 1)
            column = pd.Series(values).astype(dtype)  # type: ignore[call-overload]
            return column.mask(mask).array
        raise DataError(
            f"{where}: {label} has the unknown encoding {kind!r}",
            hint="write the file again with a current anndata, or drop the column",
        )
    values = _array(node, label, where)
    legacy = group.get(_LEGACY_CATEGORIES, {})
    if name in legacy:
        categories = _array(legacy[name], f"{part}/{_LEGACY_CATEGORIES}/{name}", where)
        return _categorical(values, categories, False, label, where)
    return values


def _need(node: Any, names: tuple[str, ...], label: str, where: str) -> None:
    for name in names:
        if name not in node or is_group(node[name]):
            raise DataError(f"{where}: {label} has no {name}", hint=_DAMAGED)


def _array(node: Any, label: str, where: str) -> np.ndarray:
    if len(node.shape) != 1:
        raise DataError(
            f"{where}: {label} has {len(node.shape)} dimensions, expected 1", hint=_DAMAGED
        )
    kind = encoding(node)
    if kind not in ("array", "string-array", ""):
        raise DataError(
            f"{where}: {label} has the unknown encoding {kind!r}",
            hint="write the file again with a current anndata, or drop the column",
        )
    if node.dtype.kind in "biuf":
        return np.asarray(node[:])
    if node.dtype.kind in "OSUT":
        return read_strings(node, label, where)
    raise DataError(
        f"{where}: {label} holds {node.dtype}, which no column can be made of", hint=_DAMAGED
    )


def _categorical(
    codes: np.ndarray, categories: np.ndarray, ordered: bool, label: str, where: str
) -> pd.Categorical:
    wrong = (
        np.flatnonzero((codes < -1) | (codes >= len(categories)))
        if codes.dtype.kind in "iu"
        else np.arange(1)
    )
    if len(wrong):
        raise DataError(
            f"{where}: {label} has the code {codes[wrong[0]]} in row {wrong[0]}, "
            f"but only {len(categories)} categories",
            hint=_DAMAGED,
        )
    if len(set(categories.tolist())) != len(categories):
        raise DataError(f"{where}: {label} lists a category twice", hint=_DAMAGED)
    names: Any = categories
    return pd.Categorical.from_codes(codes, categories=names, ordered=ordered)


def _compound_frame(node: Any, part: str, where: str) -> pd.DataFrame:
    """Read a table of the layout before anndata 0.7: one compound dataset."""
    fields = node.dtype.names
    if not fields or len(node.shape) != 1:
        raise DataError(
            f"{where}: {part} is not a table but a dataset of {node.dtype}", hint=_DAMAGED
        )
    table = node[:]
    columns: Mapping[str, Any] = {
        name: [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in table[name]]
        if table.dtype[name].kind in "OS"
        else table[name]
        for name in fields
    }
    frame = pd.DataFrame(columns)
    index = next((name for name in ("index", "_index") if name in fields), fields[0])
    return frame.set_index(index).rename(index=str).rename_axis(None)

"""Recognise what a path is, by its content and never by its name.

The order is size, signature, container, metadata: nothing is parsed before its kind is known.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scdrugmap.data.inspect import Scan, scan
from scdrugmap.errors import DataError, ResourceError, UsageError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_HEAD_BYTES = 4096
_USER_BLOCKS = (512, 1024, 2048, 4096)
_ZARR_ROOTS = (".zgroup", "zarr.json")
_CONVERT = "`scdrugmap convert` turns 10x files and tables into h5ad"
_NEVER = "give an h5ad, zarr or 10x file"


class Format(StrEnum):
    """A kind of input."""

    H5AD = "h5ad"
    ZARR = "zarr"
    TENX_H5 = "10x h5"
    TENX_FOLDER = "10x folder"
    TABLE = "table"


@dataclass(frozen=True)
class Recognised:
    """What a path is; `scan` holds the metadata of an HDF5 file."""

    format: Format
    path: Path
    scan: Scan | None = None


def recognise(path: str | Path) -> Recognised:
    """Find out what a path is.

    Raises
    ------
    UsageError
        There is nothing there, or nothing that could hold cells (a device, an unrelated folder).
    DataError
        It is damaged, dangerous, or of a kind that is not read; the hint says what to do.
    ResourceError
        It cannot be read now.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} does not exist", hint=_near(path)) from None
    except PermissionError as err:
        raise _no_permission(path) from err
    except (OSError, ValueError) as err:  # a name that is too long, holds NUL, or loops
        raise UsageError(
            f"{str(path)[:200]!r} is no usable path ({type(err).__name__})",
            hint="check the name of the file",
        ) from err
    if stat.S_ISDIR(mode):
        return Recognised(_recognise_folder(path), path)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is not a file but a pipe or device", hint=_NEVER)
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD_BYTES + len(HDF5_SIGNATURE))
    except PermissionError as err:
        raise _no_permission(path) from err
    if not head:
        raise DataError(f"{path.name}: the file is empty", hint="fetch it again")
    if any(head[at:].startswith(HDF5_SIGNATURE) for at in (0, *_USER_BLOCKS)):
        return _recognise_hdf5(path)
    if head.startswith(_ZIP):
        return Recognised(_recognise_zip(path), path)
    return Recognised(_recognise_other(path, head), path)


def _near(path: Path) -> str:
    """Return what may have been meant by a path that does not exist."""
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"the folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.7)
    return f"did you mean {' or '.join(near)}?" if near else "check the spelling and the folder"


def _no_permission(path: Path) -> ResourceError:
    return ResourceError(f"{path}: permission denied", hint="make the file readable for this user")


def _recognise_folder(path: Path) -> Format:
    try:
        names = {entry.name for entry in path.iterdir()}
    except PermissionError as err:
        raise _no_permission(path) from err
    if names & set(_ZARR_ROOTS):
        return Format.ZARR
    if any(name.endswith(("matrix.mtx", "matrix.mtx.gz")) for name in names):
        return Format.TENX_FOLDER
    raise UsageError(
        f"{path} is a folder without a zarr store or a 10x matrix (matrix.mtx, features, barcodes)",
        hint="name a file, or the folder that holds the matrix",
    )


def _recognise_hdf5(path: Path) -> Recognised:
    found = scan(path)
    if "obs" in found and "var" in found:
        return Recognised(Format.H5AD, path, found)
    if "mod" in found:
        modality = next((p for p in found.objects if p.startswith("mod/")), "mod/rna").split("/")[1]
        raise DataError(
            f"{path.name} is an h5mu file of several modalities; cells are in mod/{modality}",
            hint=f"mudata.read('{path.name}').mod['{modality}'].write_h5ad('{modality}.h5ad')",
        )
    if "row_attrs" in found and "col_attrs" in found:
        raise DataError(
            f"{path.name} is a loom file, which is not read",
            hint=f"scanpy.read_loom('{path.name}').write_h5ad('{path.stem}.h5ad')",
        )
    groups = {p.rpartition("/")[0] for p in found.objects if p.endswith("/barcodes")}
    if any(f"{group}/indptr" in found for group in groups):
        return Recognised(Format.TENX_H5, path, found)
    has = ", ".join(p for p in found.objects if p and "/" not in p) or "nothing"
    missing = "obs" if "obs" not in found else "var"
    raise DataError(
        f"{path.name}: there is no {missing}, so this is no AnnData file (it holds {has[:200]})",
        hint=_CONVERT,
    )


def _recognise_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error) as err:
        raise DataError(f"{path.name} is a damaged zip file: {err}", hint="fetch it again") from err
    if any(name.rpartition("/")[2] in _ZARR_ROOTS for name in names):
        return Format.ZARR
    raise DataError(
        f"{path.name} is a zip file that holds no zarr store ({', '.join(names[:3])})",
        hint="unpack it and give the file inside",
    )


def _recognise_other(path: Path, head: bytes) -> Format:
    name = path.name
    if head.startswith(_GZIP):
        return _recognise_gzip(path, head)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise DataError(
            f"{name} looks like a web page, not like data",
            hint="the download failed or needs a login: open the link in a browser",
        )
    if head.startswith((b"RDX", b"RDA", b"X\n\x00\x00")):
        raise _r_object(name)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        raise DataError(f"{name} is a Python pickle, which is never opened", hint=_NEVER)
    if head.startswith(b"\x93NUMPY"):
        raise DataError(f"{name} is a NumPy array, which has no names of cells", hint=_NEVER)
    if b"\x00" not in head and any(mark in head for mark in (b",", b"\t", b";")):
        return Format.TABLE
    raise DataError(
        f"{name} is no HDF5 file: it begins with {head[:8]!r}, expected {HDF5_SIGNATURE!r} "
        f"(size {path.stat().st_size:,} bytes; incomplete download?)",
        hint="fetch the file again; h5ad, zarr and 10x files can be read",
    )


def _recognise_gzip(path: Path, head: bytes) -> Format:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    except zlib.error as err:
        raise DataError(
            f"{path.name} is a damaged gzip file: {err}", hint="fetch it again"
        ) from err
    if inner.startswith(HDF5_SIGNATURE):
        raise DataError(
            f"{path.name} is a gzip-compressed HDF5 file", hint=f"unpack it: gunzip {path.name}"
        )
    if inner.startswith((b"RDX", b"RDA", b"X\n\x00\x00")):
        raise _r_object(path.name)
    if inner.startswith(b"%%MatrixMarket"):
        raise DataError(
            f"{path.name} is a matrix without names of cells and genes",
            hint="name the folder that also holds features and barcodes",
        )
    if b"\x00" not in inner and any(mark in inner for mark in (b",", b"\t", b";")):
        return Format.TABLE
    raise DataError(f"{path.name} is a gzip file of something else", hint=f"unpack it; {_NEVER}")


def _r_object(name: str) -> DataError:
    return DataError(
        f"{name} is an R object (Seurat or RDS), which is not read",
        hint="see 'Files from R' in the docs, or in R: "
        "anndata::write_h5ad(anndata::AnnData(X=t(counts), obs=meta), 'cells.h5ad')",
    )

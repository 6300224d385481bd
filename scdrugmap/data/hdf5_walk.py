"""Look at the metadata of an HDF5 file; run as a script in a process of its own.

The HDF5 library can crash on a damaged file, so this never runs inside the program: ``inspect``
starts it with limits and takes a dead process for an answer. It needs h5py and the standard
library only, reads no data but to see what large pieces unpack to, and follows nothing that leaves
the file. The answer is one JSON object on stdout: ``{"objects": ...}`` or
``{"error": [message, hint], "kind": ...}``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from scdrugmap.data.hdf5_storage import LZF, Storage, find_bomb
from scdrugmap.data.look_limits import allow_time, limit_memory
from scdrugmap.data.unpacking import MOST_BYTES

MAX_DEPTH = 8
MAX_OBJECTS = 100_000
MAX_ATTRIBUTES = 2_000
MAX_ATTRIBUTE_BYTES = 4 << 20
MAX_DIMENSION = 1 << 40
MAX_UNREAD_BYTES = 1 << 30
SAFE_BYTES = 64 << 20
"""Declared sizes up to this are never a bomb."""
MAX_RATIO = 1_100
"""Declared bytes per stored byte; the best that gzip can do is 1,032."""
MAX_CHUNK_BYTES = MOST_BYTES
MAX_TEXTS = 1_000_000
"""Texts that are read here once, because their heaps are what the library trips over."""
_TEXTS_PER_READ = 16_384

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters that come with HDF5 and h5py."""

COMPOUND_ALLOWED = re.compile(r"obs|var|raw\.var|raw/var|(obsm|varm|obsp|varp|uns)(/.*)?")
"""Places where old versions of anndata keep tables as compound datasets."""

REFERENCE_ALLOWED = re.compile(r"(.*/)?(obs|var)/[^/]+@categories")
"""anndata 0.7 points from a column to its categories; the pointer is never followed."""

UNREAD = ("uns", "obsm", "varm", "obsp", "varp")
"""Parts of an AnnData file that are never read."""

FLOATS = tuple(
    getattr(h5t, f"IEEE_F{bits}{order}") for bits in (16, 32, 64) for order in ("LE", "BE")
)

KEPT_ATTRIBUTES = ("encoding-type", "h5sparse_format", "_index")

NOT_REAL = "no tool that writes AnnData files makes this: write the file again with anndata"
DAMAGED = "the file is damaged: write it again, or fetch it again"


class RefusedError(Exception):
    """The file is not fit to be read."""

    def __init__(self, message: str, hint: str = NOT_REAL) -> None:
        super().__init__(message)
        self.hint = hint


class Walk:
    """One look over a file; `objects` describes what was found, by path."""

    def __init__(self, file: h5py.h5f.FileID, path: str) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.soft: dict[str, str] = {}
        self.groups: dict[Any, str] = {}
        self.datasets: set[Any] = set()
        self.storage = Storage()
        self.n_announced, self.n_texts = 1, 0
        self.byte_order: tuple[int, str] | None = None
        root = h5g.open(file, b"/")
        self.groups[_address(root)] = "/"
        self.objects[""] = {"kind": "group", **self.attributes(root, "")}
        self.group(root, "", 1)
        self.resolve_soft_links()
        headers = [address for _, address in (*self.groups, *self.datasets)]
        problem = self.storage.problem(file.get_filesize(), headers)
        if problem:
            raise RefusedError(problem, DAMAGED)
        self.unpack(path, file.get_create_plist().get_userblock())

    def unpack(self, path: str, base: int) -> None:
        """Unpack the large pieces without keeping them; time is allowed by their size."""
        suspects = [item for item in self.storage.suspects if item[3].split("/")[0] not in UNREAD]
        if not suspects:
            return
        allow_time(sum(size for _, size, _, _ in suspects))
        with open(path, "rb") as handle:
            bomb = find_bomb(handle, base, suspects)
        if bomb:
            raise RefusedError(bomb)

    def group(self, group: Any, path: str, depth: int) -> None:
        """Look at the members of a group."""
        self.n_announced += group.get_num_objs()
        if self.n_announced > MAX_OBJECTS:
            raise RefusedError(f"more than {MAX_OBJECTS:,} objects (in {path or '/'})")
        names: list[bytes] = []
        group.links.iterate(names.append)
        for name in names:
            try:
                inner = f"{path}/{name.decode()}".lstrip("/")
            except UnicodeDecodeError as err:
                raise RefusedError(f"a name in {path or '/'} is not UTF-8: {name[:40]!r}") from err
            if depth > MAX_DEPTH:
                raise RefusedError(f"groups nested deeper than {MAX_DEPTH} ({inner[:80]})")
            self.link(group, name, inner, depth)

    def link(self, group: Any, name: bytes, path: str, depth: int) -> None:
        """Look at one link, and at what it points to if that is in this file."""
        kind = group.links.get_info(name).type
        if kind == h5l.TYPE_EXTERNAL:
            raise RefusedError(f"{path} is an external link: it points into another file")
        if kind == h5l.TYPE_SOFT:
            self.soft[path] = group.links.get_val(name).decode("utf-8", "replace")
            return
        if kind != h5l.TYPE_HARD:
            raise RefusedError(f"{path} is a link of an unknown kind ({kind})")
        node = h5o.open(group, name)
        if isinstance(node, h5g.GroupID):
            known = self.groups.setdefault(_address(node), path)
            if known != path:
                word = (
                    "loops back to" if f"{path}/".startswith(f"{known}/") or known == "/" else "is"
                )
                raise RefusedError(f"{path} {word} {known}: one group under two names (hard link)")
            self.objects[path] = {"kind": "group", **self.attributes(node, path)}
            self.group(node, path, depth + 1)
        elif isinstance(node, h5d.DatasetID):
            self.objects[path] = {"kind": "dataset", **self.dataset(node, path)}
        elif path.split("/")[0] in UNREAD:
            self.objects[path] = {"kind": "type"}
        else:
            raise RefusedError(f"{path} is a named type, where data are expected")

    def dataset(self, node: Any, path: str) -> dict[str, Any]:
        """Look at the form of a dataset and refuse what is not plain stored numbers or text."""
        plist = node.get_create_plist()
        if plist.get_layout() == h5d.VIRTUAL:
            raise RefusedError(f"{path} is a virtual dataset: its values come from other files")
        if plist.get_external_count():
            raise RefusedError(f"{path} has external storage: its values come from another file")
        numbers = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        for place, number in enumerate(numbers):
            if number == LZF and any(n > MAX_CHUNK_BYTES for n in plist.get_filter(place)[2][2:3]):
                raise RefusedError(f"{path} asks for more memory than its pieces can need")
            if number not in FILTERS or not h5z.filter_avail(number):
                raise RefusedError(
                    f"{path} is stored with the unknown filter {number}",
                    "write the file again with gzip, lzf or no compression",
                )
        kind = self.values_kind(node.get_type(), path)
        space = node.get_space()
        shape = list(space.get_simple_extent_dims()) if space.get_simple_extent_ndims() else []
        empty = space.get_simple_extent_type() == h5s.NULL
        size = node.get_type().get_size()
        declared = 0 if empty else size
        for length in shape:
            if length > MAX_DIMENSION:
                raise RefusedError(f"{path} declares a dimension of {length:,}")
            declared *= length
        stored = node.get_storage_size()
        chunk = list(plist.get_chunk()) if plist.get_layout() == h5d.CHUNKED else None
        unread = path.split("/")[0] in UNREAD
        too_large = declared > SAFE_BYTES and declared > MAX_RATIO * stored
        if unread:
            too_large = too_large or declared > MAX_UNREAD_BYTES
        elif too_large:
            raise RefusedError(
                f"{path} declares {declared:,} bytes ({' x '.join(f'{n:,}' for n in shape)}) but "
                f"stores {stored:,}, more than {MAX_RATIO:,} times less"
            )
        if chunk and not unread:
            chunk_bytes = size
            for length in chunk:
                chunk_bytes *= length
            if chunk_bytes > MAX_CHUNK_BYTES:
                raise RefusedError(
                    f"{path} is stored in pieces of {chunk_bytes:,} bytes, more than "
                    f"{MAX_CHUNK_BYTES:,}",
                    "write the file again without `chunks`",
                )
        first, missing = _address(node) not in self.datasets, 0
        self.datasets.add(_address(node))
        if first:
            n_pieces = self.storage.add(node, path)
            wanted = 1 if declared else 0
            for length, piece in zip(shape, chunk or shape, strict=True):
                wanted *= -(-length // piece) if piece else 0
            missing = 0 if plist.get_layout() == h5d.COMPACT else max(0, wanted - n_pieces)
            if missing and self.must_be_whole(path):
                raise RefusedError(
                    f"{missing:,} of {wanted:,} pieces of {path} are missing", DAMAGED
                )
            if not unread and kind == "text":
                self.touch_texts(node, shape)
        return {
            "values": kind,
            "shape": shape,
            "bytes": declared,
            "stored": stored,
            "filters": [FILTERS[number] for number in numbers],
            "skip": too_large,
            "missing": 0 if unread else missing,
            **(self.attributes(node, path) if first else {}),
        }

    def must_be_whole(self, path: str) -> bool:
        """Tell whether values that are not stored, which read as zeros, cannot be meant."""
        parent, _, name = path.rpartition("/")
        of_index = self.objects.get(parent, {}).get("_index") == name
        return of_index or name in ("data", "indices", "indptr")

    def touch_texts(self, node: Any, shape: list[int]) -> None:
        """Read texts once, so that what kills the library does so here."""
        dataset = h5py.Dataset(node)
        if len(shape) != 1 or not node.get_type().is_variable_str():
            return
        stop = min(shape[0], MAX_TEXTS - self.n_texts)
        self.n_texts += stop
        for start in range(0, stop, _TEXTS_PER_READ):
            dataset[start : min(stop, start + _TEXTS_PER_READ)]

    def values_kind(self, kind: Any, path: str) -> str:
        """Say in a word what a type holds; refuse pointers and bytes without meaning."""
        code = kind.get_class()
        if code in (h5t.INTEGER, h5t.FLOAT) and path.split("/")[0] not in UNREAD:
            self.check_number(kind, path)
        if code == h5t.REFERENCE:
            if REFERENCE_ALLOWED.fullmatch(path):
                return "reference"
            raise RefusedError(f"{path} holds references to other objects")
        if code == h5t.OPAQUE:
            raise RefusedError(f"{path} holds opaque bytes")
        if code in (h5t.VLEN, h5t.ARRAY):
            inner = self.values_kind(kind.get_super(), path)
            if not COMPOUND_ALLOWED.fullmatch(path.split("@")[0]):
                raise RefusedError(f"{path} holds lists of {inner}")
            return f"lists of {inner}"
        if code == h5t.COMPOUND:
            members = [
                self.values_kind(kind.get_member_type(i), path) for i in range(kind.get_nmembers())
            ]
            if [kind.get_member_name(i) for i in range(len(members))] == [b"r", b"i"]:
                raise RefusedError(f"{path} holds complex numbers", "give a file with real numbers")
            if not COMPOUND_ALLOWED.fullmatch(path.split("@")[0]):
                raise RefusedError(f"{path} holds structures (compound), not plain values")
            return "structure"
        names = {h5t.INTEGER: "integer", h5t.FLOAT: "float", h5t.STRING: "text", h5t.ENUM: "enum"}
        if code not in names:
            raise RefusedError(f"{path} holds values of an unsupported type")
        return names[code]

    def check_number(self, kind: Any, path: str) -> None:
        """Refuse numbers of a form that no machine has, or of two byte orders in one file."""
        size, order = kind.get_size(), kind.get_order()
        if kind.get_class() == h5t.FLOAT:
            common = any(kind.equal(known) for known in FLOATS)
        else:
            common = size in (1, 2, 4, 8) and kind.get_precision() == 8 * size
        if not common or kind.get_offset():
            raise RefusedError(f"{path} holds numbers of an unusual form ({size} bytes)", DAMAGED)
        if size > 1:
            known, first = self.byte_order or (order, path)
            if order != known:
                raise RefusedError(f"{path} and {first} differ in their order of bytes", DAMAGED)
            self.byte_order = known, first

    def attributes(self, node: Any, path: str) -> dict[str, Any]:
        """Read every attribute once, so that nothing new meets the library later."""
        number = h5a.get_num_attrs(node)
        if number > MAX_ATTRIBUTES:
            raise RefusedError(f"{path or '/'} has {number:,} attributes")
        kept: dict[str, Any] = {}
        for i in range(number):
            attribute = h5a.open(node, index=i)
            name = attribute.name.decode("utf-8", "replace")
            label = f"{path}@{name}"
            space = attribute.get_space()
            if space.get_simple_extent_type() == h5s.NULL:
                continue
            self.check_attribute(
                space.get_simple_extent_npoints() * attribute.get_type().get_size(), name, path
            )
            if self.values_kind(attribute.get_type(), label) == "reference":
                continue
            owner = h5py.Group(node) if isinstance(node, h5g.GroupID) else h5py.Dataset(node)
            try:
                value = owner.attrs[name]
            except (OSError, MemoryError) as err:
                raise RefusedError(
                    f"attribute {name!r} of {path or '/'} cannot be read, or is larger than "
                    f"{MAX_ATTRIBUTE_BYTES:,} bytes"
                ) from err
            self.check_attribute(sum(map(len, _texts(value))), name, path)
            if name in KEPT_ATTRIBUTES and isinstance(value, str | bytes):
                kept[name] = value if isinstance(value, str) else value.decode("utf-8", "replace")
        return kept

    @staticmethod
    def check_attribute(size: int, name: str, path: str) -> None:
        """Refuse an attribute that is large enough to be a burden."""
        if size > MAX_ATTRIBUTE_BYTES:
            raise RefusedError(
                f"attribute {name!r} of {path or '/'} has {size:,} bytes, more than "
                f"{MAX_ATTRIBUTE_BYTES:,}"
            )

    def resolve_soft_links(self) -> None:
        """Follow soft links by name, after it is known that nothing leaves the file."""
        for path in self.soft:
            seen, target = [path], path
            while True:
                link = next((p for p in _parents(target) if p in self.soft), None)
                if link is None:
                    break
                goal = self.soft[link]
                base = "" if goal.startswith("/") else link.rpartition("/")[0]
                parts = f"{base}/{goal}/{target[len(link) :]}".split("/")
                target = "/".join(part for part in parts if part not in ("", "."))
                if target in seen or len(seen) > MAX_DEPTH:
                    raise RefusedError(f"{path} is a soft link that leads in a circle")
                seen.append(target)
            if target not in self.objects:
                raise RefusedError(
                    f"{path} is a soft link to {self.soft[path]}, which is not in this file"
                )
            if not target or f"{path}/".startswith(f"{target}/"):
                raise RefusedError(f"{path} is a soft link to a group that holds it: a circle")
            self.objects[path] = {**self.objects[target], "link": target}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _address(node: Any) -> Any:
    info = h5o.get_info(node)
    return info.fileno, info.addr


def _texts(value: Any) -> list[Any]:
    values = value.ravel().tolist() if hasattr(value, "ravel") else [value]
    return [item for item in values if isinstance(item, str | bytes)]


def look(path: str) -> dict[str, Any]:
    """Return the answer for a file."""
    try:
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)
    except BlockingIOError as err:
        return {
            "error": [f"is locked: another process is writing it ({err.strerror})", ""],
            "kind": "locked",
        }
    except OSError as err:
        return {"error": [f"is no readable HDF5 file: {err}", DAMAGED], "kind": "open"}
    try:
        return {"objects": Walk(file, path).objects}
    except RefusedError as err:
        return {"error": [str(err), err.hint], "kind": "refused"}
    except MemoryError:
        return {"error": ["looking at it takes too much memory", DAMAGED], "kind": "memory"}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as err:
        words = " ".join(str(err).split())
        return {"error": [f"its metadata cannot be read: {words}", DAMAGED], "kind": "damaged"}


if __name__ == "__main__":
    limit_memory()
    json.dump(look(sys.argv[1]), sys.stdout)

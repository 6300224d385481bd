"""Where an HDF5 file stores the values of its datasets, and whether that can be true.

HDF5 has no checksums of what says where values are and how they are packed. One changed byte makes
a dataset read the bytes of another, or packed bytes as numbers, without a word. Needs h5py and NumPy
only, as the process that looks at files does.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, BinaryIO

import numpy as np
from h5py import h5d, h5z

from scdrugmap.data.unpacking import MOST_BYTES, MOST_INFLATED, becomes_more, most_packed

_NEVER_SKIPPED = (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
"""Filters that cannot fail when they pack, so no writer leaves them out of one piece."""

LZF = 32000
_CHECKSUM = 4


class Storage:
    """The pieces of all datasets, by place and size in the file."""

    def __init__(self) -> None:
        self.starts, self.sizes, self.owners = array("Q"), array("Q"), array("L")
        self.names: list[str] = []
        self.odd = ""
        self.suspects: list[tuple[int, int, int, str]] = []
        """Place, size, bytes declared and dataset of the pieces that gzip could make enormous."""

    def add(self, node: Any, path: str) -> int:
        """Note the pieces of a dataset; return how many there are.

        Parameters
        ----------
        node : h5py.h5d.DatasetID
        path : str
            Its name in the file, for messages.
        """
        before = len(self.starts)
        plist = node.get_create_plist()
        if plist.get_layout() == h5d.CHUNKED and node.get_storage_size():
            filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
            packers = [n for n in filters if n in (h5z.FILTER_DEFLATE, LZF)]
            if len(packers) > 1:
                self.odd = f"{path} is packed twice"
            unpacked = math.prod(plist.get_chunk()) * node.get_type().get_size()
            grid = list(zip(node.shape, plist.get_chunk(), strict=True))
            seen: set[tuple[int, ...]] = set()
            node.chunk_iter(lambda chunk: self._add_chunk(chunk, path, filters, unpacked))
            node.chunk_iter(lambda chunk: self._check_place(chunk, path, grid, seen))
        elif plist.get_layout() == h5d.CONTIGUOUS and node.get_offset() is not None:
            self.starts.append(node.get_offset())
            self.sizes.append(node.get_storage_size())
        n_pieces = len(self.starts) - before
        self.owners.extend([len(self.names)] * n_pieces)
        self.names.append(path)
        return n_pieces

    def _add_chunk(self, chunk: Any, path: str, filters: list[int], unpacked: int) -> None:
        self.starts.append(chunk.byte_offset)
        self.sizes.append(chunk.size)
        used = [f for i, f in enumerate(filters) if not chunk.filter_mask >> i & 1]
        if not used and chunk.size != unpacked:
            self.odd = f"{path} has a piece of {chunk.size:,} bytes, expected {unpacked:,}"
        elif any(f in _NEVER_SKIPPED and f not in used for f in filters):
            self.odd = f"{path} has a piece that was not packed as the others"
        elif chunk.size > most_packed(unpacked):
            self.odd = f"{path} has a piece of {chunk.size:,} bytes, expected {unpacked:,} at most"
        elif h5z.FILTER_DEFLATE in used and chunk.size * MOST_INFLATED > MOST_BYTES:
            self.suspects.append((chunk.byte_offset, chunk.size, unpacked + _CHECKSUM, path))

    def _check_place(
        self, chunk: Any, path: str, grid: list[tuple[int, int]], seen: set[tuple[int, ...]]
    ) -> None:
        """Note a piece that stands for no rows, or for those of another: others then read as zeros."""
        place = tuple(chunk.chunk_offset)
        if any(not 0 <= at < n or at % step for at, (n, step) in zip(place, grid, strict=True)):
            self.odd = f"{path} has a piece for rows that it does not have"
        elif place in seen:
            self.odd = f"{path} has two pieces for the same rows"
        seen.add(place)

    def problem(self, file_size: int, headers: list[int]) -> str:
        """Say what cannot be: values over each other, over a header, or beyond the file.

        Parameters
        ----------
        file_size : int
            Bytes.
        headers : list of int
            Places of the headers of objects.

        Returns
        -------
        str
            Empty if there is no problem.
        """
        if self.odd or not len(self.starts):
            return self.odd
        starts = np.frombuffer(self.starts, np.uint64).astype(np.int64)
        sizes = np.frombuffer(self.sizes, np.uint64).astype(np.int64)
        owners = np.frombuffer(self.owners, f"u{self.owners.itemsize}")
        order = np.argsort(starts, kind="stable")
        starts, ends, owners = starts[order], (starts + sizes)[order], owners[order]
        wrong = np.flatnonzero((starts < 0) | (ends < starts) | (ends > file_size))
        if len(wrong):
            return f"the values of {self.names[owners[wrong[0]]]} lie beyond the end of the file"
        over = np.flatnonzero(ends[:-1] > starts[1:])
        if len(over):
            one, two = (self.names[owner] for owner in owners[over[0] : over[0] + 2])
            return f"the values of {one} and {two} are stored in one place"
        places = np.array(headers, dtype=np.int64)
        at = np.searchsorted(starts, places, side="right") - 1
        inside = at[(at >= 0) & (places < ends[at])]
        if len(inside):
            return f"the values of {self.names[owners[inside[0]]]} are stored over the header of an object"
        return ""


def find_bomb(file: BinaryIO, base: int, suspects: list[tuple[int, int, int, str]]) -> str:
    """Say which piece unpacks to more than its dataset declares; the library would hold it all.

    Parameters
    ----------
    file : file
        The same, open for reading.
    base : int
        Bytes before the first of HDF5; versions of the library differ in whether places count them.
    suspects : list of (place, size, bytes declared, dataset)
        Of :attr:`Storage.suspects`.
    """
    for start, size, unpacked, path in suspects:
        for place in {start, base + start}:
            file.seek(place)
            if becomes_more(file, size, unpacked, "zlib"):
                return f"{path} has a piece that unpacks to more than {unpacked:,} bytes"
    return ""

"""Content hashes of cells, by which copies are found within and across files.

A cell is the set of its (gene, value) pairs: the hash of a cell is the sum, modulo 2**128, of a
hash of each pair, so the order of columns does not matter and no sorting is needed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

# Constants of the splitmix64 finaliser (Steele, Lea, Flood 2014, OOPSLA, "Fast splittable
# pseudorandom number generators").
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_ENTRIES = 1 << 15
_SPELT_AT_ONCE = 1 << 14


def gene_hashes(identity: np.ndarray) -> np.ndarray:
    """Hash gene identities.

    Parameters
    ----------
    identity : (n_genes,) str
        Ensembl id, or the published name of a gene without one.

    Returns
    -------
    (2, n_genes) uint64
    """
    digests = [
        hashlib.blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for name in identity
    ]
    words = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
    return np.ascontiguousarray(words.reshape(-1, 2).T)


def cell_hashes(rows: Any, genes: np.ndarray) -> np.ndarray:
    """Hash cells.

    Parameters
    ----------
    rows : csr_matrix float32, (n, n_genes)
        No explicit zeros, no repeated columns.
    genes : (2, n_genes) uint64
        From :func:`gene_hashes`.

    Returns
    -------
    (n, 2) uint64
        Zero for a cell without any value.
    """
    n = rows.shape[0]
    out = np.zeros((n, 2), dtype=np.uint64)
    indptr = rows.indptr.astype(np.int64)
    # Pieces of whole rows: a few hundred kilobytes, so that the five passes stay in the cache.
    start = 0
    while start < n:
        stop = int(np.searchsorted(indptr, indptr[start] + _ENTRIES, side="right")) - 1
        stop = min(n, max(stop, start + 1))
        first, last = indptr[start], indptr[stop]
        if last > first:
            bits = rows.data[first:last].view(np.uint32).astype(np.uint64)
            columns = rows.indices[first:last]
            filled = np.flatnonzero(indptr[start + 1 : stop + 1] > indptr[start:stop])
            borders = indptr[start + filled] - first
            for word in (0, 1):
                mixed = _mix(genes[word][columns], bits)
                out[start + filled, word] = np.add.reduceat(mixed, borders)
        start = stop
    return out


def as_text(hashes: np.ndarray) -> np.ndarray:
    """Spell (n, 2) uint64 hashes as (n,) object str of 32 hexadecimal digits."""
    out = np.empty(len(hashes), dtype=object)
    for start in range(0, len(hashes), _SPELT_AT_ONCE):
        part = hashes[start : start + _SPELT_AT_ONCE].tolist()
        out[start : start + len(part)] = [f"{a:016x}{b:016x}" for a, b in part]
    return out


def _mix(gene: np.ndarray, bits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = bits * _SPREAD
        z += gene
        z ^= z >> np.uint64(30)
        z *= _MIX_1
        z ^= z >> np.uint64(27)
        z *= _MIX_2
        z ^= z >> np.uint64(31)
    return z

"""Random numbers that depend on the cell's name, never on its position or its neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

# Constants of the splitmix64 finaliser (Steele, Lea, Flood 2014, OOPSLA, "Fast splittable
# pseudorandom number generators").
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
# The same for 32 bits: the golden ratio again, and the finaliser of MurmurHash3 (Appleby 2011).
_GOLDEN_32 = np.uint32(0x9E3779B1)
_MIX_1_32 = np.uint32(0x85EBCA6B)
_MIX_2_32 = np.uint32(0xC2B2AE35)


def cell_keys(seed: int, cells: Sequence[str] | np.ndarray, draw: int = 0) -> np.ndarray:
    """Return one random key per cell.

    Parameters
    ----------
    seed : int
        Seed of the run.
    cells : (n,) str
        Cell names.
    draw : int
        Number of the draw, for models that average several.

    Returns
    -------
    (n,) uint64
    """
    prefix = f"{seed}\x00{draw}\x00".encode()
    digests = [
        hashlib.blake2b(prefix + str(cell).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for cell in cells
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def token_keys(cell_key: np.ndarray | np.uint64, ids: np.ndarray) -> np.ndarray:
    """Return a random 64-bit number for each (cell, token id) pair, without any state.

    Keeping the tokens with the ``k`` smallest numbers draws ``k`` of them without replacement,
    whatever the order of the columns.

    Parameters
    ----------
    cell_key : uint64, broadcast against `ids`
        Key of the token's cell.
    ids : (m,) int
        Token ids, distinct within a cell.

    Returns
    -------
    (m,) uint64
    """
    with np.errstate(over="ignore"):
        z = np.asarray(cell_key, np.uint64) + (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * (
            _GOLDEN
        )
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def sample_tokens(cell_key: np.uint64, ids: np.ndarray, k: int) -> np.ndarray:
    """Draw `k` tokens of a cell without replacement, whatever the order of the columns.

    Each (cell, token id) pair has a random number; the smallest `k` win. For one cell the numbers
    of different ids differ (each step below can be undone), so there are never ties.

    Parameters
    ----------
    cell_key : uint64
        Key of the cell, see :func:`cell_keys`.
    ids : (m,) int
        Token ids, distinct, each below 2**32.
    k : int
        How many, 1 to m.

    Returns
    -------
    (k,) int64
        Positions in `ids`, ascending.
    """
    low, high = np.array([cell_key], np.uint64).view(np.uint32)
    z = ids.astype(np.uint32) * _GOLDEN_32 + low
    z = (z ^ (z >> np.uint32(16))) * _MIX_1_32 ^ high
    z = (z ^ (z >> np.uint32(13))) * _MIX_2_32
    z ^= z >> np.uint32(16)
    return np.flatnonzero(z <= np.partition(z, k - 1)[k - 1])


def generator(seed: int, cell: str, draw: int = 0) -> np.random.Generator:
    """Return a generator for one cell: the same for the same seed, cell name and draw."""
    return np.random.Generator(np.random.Philox(key=int(cell_keys(seed, [cell], draw)[0])))

"""Counter-based random numbers: uniform draws as a pure function of (seed, stream, index, view).

A stateful generator cannot easily be resumed, shared between workers, or replayed for a single image. These draws
can: the key is mixed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195), so the
numbers of image 7 in view 3 are the same in any batch, any process and any order.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def uniform(seed: int, index: np.ndarray, view: np.ndarray, count: int, stream: str) -> np.ndarray:
    """Return float64 [B, count] in [0, 1): `count` draws for each (index, view) pair of two int arrays [B].

    stream: a name that makes the draws of different purposes ("flip", "crop") independent of each other.
    """
    salt = np.array([seed, zlib.crc32(stream.encode())], dtype=np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is intended
        key = _mix(_mix(salt[:1]) ^ salt[1:])
        key = _mix(key ^ np.asarray(index, dtype=np.int64).astype(np.uint64))
        key = _mix(key ^ np.asarray(view, dtype=np.int64).astype(np.uint64))
        values = _mix(key[:, None] + np.arange(count, dtype=np.uint64)[None] * _GOLDEN)
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.lru_cache(maxsize=8)  # all steps of an epoch use the same one
def permutation(seed: int, epoch: int, count: int, stream: str = "order") -> np.ndarray:
    """Return a permutation of range(count) that depends only on the arguments."""
    key = [seed % 2**63, epoch, zlib.crc32(stream.encode())]
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(count)
    order.flags.writeable = False
    return order


def drawn(rows: np.ndarray, count: int, stream: str) -> np.ndarray:
    """Return at most `count` of the rows, in their order: the first of a folder of classes would be of one class."""
    return np.sort(rows[permutation(0, 0, len(rows), stream)[:count]])

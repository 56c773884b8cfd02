"""Pairs of nearly equal images among many, without comparing every pair.

Two 64-bit hashes that differ in at most d bits agree wholly on one of d + 1 bands of bits, so only images that share a
band are compared (Norouzi, Punjani, Fleet 2012, arXiv:1307.2982). What the hashes find is confirmed by the pixels:
a difference hash says little of a dark digit on black, or of the sky.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

DISTANCE = 6  # bits of 64
SIDE = 32  # pixels a side at which images are compared
ALIKE = 0.95  # correlation of their grey values; on CIFAR-10 all pairs above 0.93 are copies to the eye
_COMPARISONS = 400_000_000  # after which the search gives up; 60,000 photos take 25 million
_FOUND = 500_000  # pairs, after which it does too
_BLOCK = 512


def near_hashes(hashes: np.ndarray, distance: int = DISTANCE) -> tuple[np.ndarray, bool]:
    """Return the pairs (int64 [P, 2], i < j) of hashes (uint64 [N]) at most `distance` bits apart.

    Also return whether the search was complete; it is not where very many hashes are alike.
    """
    found, count, left = [np.zeros(0, np.int64)], 0, _COMPARISONS
    buckets = (bucket for band in _bands(distance + 1) for bucket in _buckets(hashes, *band))
    for bucket in sorted(buckets, key=len):  # small ones first: they tell most for least
        for pairs in _within(hashes, bucket, distance):
            found.append(pairs[:, 0] * len(hashes) + pairs[:, 1])
            count += len(pairs)
            if count > _FOUND:
                break
        left -= len(bucket) ** 2 // 2
        if left < 0 or count > _FOUND:
            break
    pairs = np.sort(np.concatenate(found))  # numpy's unique is a hundred times slower on such numbers
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return np.stack(np.divmod(pairs, len(hashes)), axis=1), left >= 0 and count <= _FOUND


def _buckets(hashes: np.ndarray, shift: int, bits: int) -> list[np.ndarray]:
    """Return the rows of hashes that agree on a band of bits, two and more at a time."""
    band = (hashes >> np.uint64(shift)) & np.uint64(2**bits - 1)
    order = np.argsort(band, kind="stable")
    return [part for part in np.split(order, np.flatnonzero(np.diff(band[order])) + 1) if len(part) > 1]


def _bands(count: int) -> Iterator[tuple[int, int]]:
    """Yield (first bit, number of bits) of `count` bands that make up 64."""
    edges = np.linspace(0, 64, count + 1).round().astype(int).tolist()
    yield from ((a, b - a) for a, b in zip(edges, edges[1:], strict=False))


def _within(hashes: np.ndarray, rows: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the near pairs among the rows of one bucket, in blocks that fit into memory."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        apart = np.bitwise_count(hashes[block][:, None] ^ hashes[rows[start:]][None])
        first, second = np.nonzero(apart <= distance)
        keep = second > first
        if keep.any():
            yield np.stack([block[first[keep]], rows[start:][second[keep]]], axis=1)


def miniature(pixels: np.ndarray) -> np.ndarray:
    """Return the grey values of uint8 [H, W, C] at SIDE x SIDE, with mean 0 and length 1; zeros of a blank image."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    grey = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0), dtype=np.float32).ravel()
    grey = grey - grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)

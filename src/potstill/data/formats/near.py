"""Near-duplicate pairs among many images, without comparing every pair.

Two 64-bit hashes that differ in at most d bits agree completely on one of d + 1 bands of bits, so only images that
share a band are compared (Norouzi, Punjani, Fleet 2012, arXiv:1307.2982). Candidates are confirmed by their pixels,
because a difference hash carries little information for a dark digit on black, or for sky.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from potstill.data.thumbnails import as_image

DISTANCE = 6  # bits of 64
SIDE = 32  # pixels per side at which images are compared
ALIKE = 0.95  # correlation of their grey values; on CIFAR-10 all pairs above 0.93 are visibly duplicates
_COMPARISONS = 400_000_000  # limit of the search; 60,000 photos take 25 million
_FOUND = 500_000  # limit of pairs
_BLOCK = 512


def near_hashes(hashes: np.ndarray, distance: int = DISTANCE) -> tuple[np.ndarray, bool]:
    """Return the pairs (int64 [P, 2], i < j) of hashes (uint64 [N]) at most `distance` bits apart.

    Also return whether the search was complete; it is not if a very large number of hashes are similar.
    """
    found, count, left = [np.zeros(0, np.int64)], 0, _COMPARISONS
    buckets = (bucket for band in _bands(distance + 1) for bucket in _buckets(hashes, *band))
    for bucket in sorted(buckets, key=len):  # small ones first: most pairs per comparison
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
    """Return groups of two or more rows whose hashes agree on a band of bits."""
    band = (hashes >> np.uint64(shift)) & np.uint64(2**bits - 1)
    order = np.argsort(band, kind="stable")
    return [part for part in np.split(order, np.flatnonzero(np.diff(band[order])) + 1) if len(part) > 1]


def _bands(count: int) -> Iterator[tuple[int, int]]:
    """Yield (first bit, number of bits) of `count` bands that cover 64 bits."""
    edges = np.linspace(0, 64, count + 1).round().astype(int).tolist()
    yield from ((a, b - a) for a, b in zip(edges, edges[1:], strict=False))


def _within(hashes: np.ndarray, rows: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the pairs within `distance` among the rows of one bucket, in blocks that fit into memory."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        apart = np.bitwise_count(hashes[block][:, None] ^ hashes[rows[start:]][None])
        first, second = np.nonzero(apart <= distance)
        keep = second > first
        if keep.any():
            yield np.stack([block[first[keep]], rows[start:][second[keep]]], axis=1)


def miniature(pixels: np.ndarray) -> np.ndarray:
    """Return the grey values of uint8 [H, W, C] at SIDE x SIDE, with mean 0 and norm 1; zeros for a blank image."""
    image = as_image(pixels).convert("L")
    grey = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0), dtype=np.float32).ravel()
    grey = grey - grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)

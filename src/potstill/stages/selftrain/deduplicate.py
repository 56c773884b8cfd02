"""Which images of the pool must not take part: copies of test and validation images, and of each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save

from potstill import progress
from potstill.artifacts import atomic
from potstill.data import decode
from potstill.data.cache import cache_folder
from potstill.data.checks.near import ALIKE, DISTANCE, miniature, near_hashes
from potstill.data.formats.facts import gather, likeness
from potstill.data.formats.sources import Encoded
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.stages.selftrain.unlabelled import Joined
from potstill.words import plural

NEAREST = 8  # images of the protected splits whose pixels are compared with those of one of the pool
DRAWN_SIDE, DRAWN_ALIKE = 64, 0.985  # small grey images: two handwritten ones correlate by 0.97, copies by more
_PAIRS = 20_000  # near pairs within the pool whose pixels are compared, the nearest first
_BLOCK = 256
_VERSION = 1

KEPT, COPY_OF_TEST, COPY_OF_VALIDATION, COPY_OF_LABELLED, COPY = range(5)
REASONS = (
    "",
    "a copy of a test image, or nearly",
    "a copy of a validation image, or nearly",
    "a copy of a labelled image",
    "a copy of another image of the pool, or nearly",
)


@dataclass(frozen=True)
class Deduplicated:
    """pool: int64 [P], the unlabelled train rows; reason: uint8 [P], a place in REASONS."""

    pool: np.ndarray
    reason: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """The rows that may take part."""
        return self.pool[self.reason == KEPT]

    def counts(self) -> dict[str, int]:
        """Return how many images were left out, by reason."""
        return {text: int((self.reason == number).sum()) for number, text in enumerate(REASONS) if number}


def deduplicate(manifest: Manifest) -> Deduplicated:
    """Return who of the pool may take part. Images of a group that test or validation has count as copies of it."""
    pool = manifest.rows("train", labelled=False)
    reason = np.full(len(pool), KEPT, np.uint8)
    labelled = manifest.rows("train", labelled=True)
    reason[np.isin(manifest.digest[pool], manifest.digest[labelled])] = COPY_OF_LABELLED
    first = np.zeros(len(pool), bool)
    first[np.unique(manifest.digest[pool], return_index=True)[1]] = True
    reason[~first] = COPY
    hashes = _hashes(manifest)
    for split, number in (("validation", COPY_OF_VALIDATION), ("test", COPY_OF_TEST)):
        reason[_like(manifest, hashes, pool, manifest.rows(split))] = number
    _drop_near(manifest, hashes, pool, reason)
    return Deduplicated(pool, reason)


def _like(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, protected: np.ndarray) -> np.ndarray:
    """Return bool [P]: which rows of the pool are equal, nearly equal, or of one group with a protected row."""
    found = np.isin(manifest.digest[pool], manifest.digest[protected])
    if manifest.group is not None:
        found |= np.isin(manifest.group[pool], manifest.group[protected])
    if len(protected):
        found[~found] = _remembered(manifest, hashes, pool[~found], protected)
    return found


def _remembered(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, protected: np.ndarray) -> np.ndarray:
    """Return bool [P]: which rows of the pool nearly equal a protected row; answers are kept in the cache folder."""
    facts = json.dumps([_VERSION, decode.VERSION, DISTANCE, ALIKE, DRAWN_SIDE, DRAWN_ALIKE, NEAREST]).encode()
    key = hashlib.sha256(facts + np.sort(manifest.digest[protected]).tobytes()).hexdigest()[:24]
    file = cache_folder() / "leaks" / f"{key}.safetensors"
    digest, like = np.zeros(0, np.uint64), np.zeros(0, bool)
    if file.is_file():
        kept = load_file(file)
        digest, like = kept["digest"], kept["like"]
    new = ~np.isin(manifest.digest[pool], digest)
    if new.any():
        digest = np.concatenate([digest, manifest.digest[pool[new]]])
        like = np.concatenate([like, _compared(manifest, hashes, pool[new], protected)])
        with atomic(file) as temporary:
            temporary.write_bytes(save({"digest": digest, "like": like}))
    return np.isin(manifest.digest[pool], digest[like])


def _compared(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, protected: np.ndarray) -> np.ndarray:
    found = np.zeros(len(pool), bool)
    small: dict[int, np.ndarray] = {}
    with progress.task("comparing the pool with held-out images", len(pool)) as shown:
        for start in range(0, len(pool), _BLOCK):
            block = pool[start : start + _BLOCK]
            apart = np.bitwise_count(hashes[block][:, None] ^ hashes[protected][None])
            for i in np.flatnonzero((apart <= DISTANCE).any(1)).tolist():
                found[start + i] = _alike(manifest, int(block[i]), protected[_nearest(apart[i])], small)
            shown.advance(len(block))
    return found


def _nearest(apart: np.ndarray) -> np.ndarray:
    count = min(NEAREST, int((apart <= DISTANCE).sum()))
    return np.argpartition(apart, count - 1)[:count]


def _alike(manifest: Manifest, row: int, others: np.ndarray, small: dict[int, np.ndarray]) -> bool:
    for other in others.tolist():
        if other not in small:
            small[other] = miniature(manifest.image(other))
    pixels = manifest.image(row)
    drawn = pixels.shape[2] == 1 and max(pixels.shape[:2]) <= DRAWN_SIDE
    least, own = DRAWN_ALIKE if drawn else ALIKE, miniature(pixels)
    return any(float(own @ small[other]) >= least for other in others.tolist())


def _drop_near(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, reason: np.ndarray) -> None:
    """Mark the later of two nearly equal images of the pool."""
    kept = np.flatnonzero(reason == KEPT)
    pairs, complete = near_hashes(hashes[pool[kept]])
    apart = np.bitwise_count(hashes[pool[kept[pairs[:, 0]]]] ^ hashes[pool[kept[pairs[:, 1]]]])
    if not complete or len(pairs) > _PAIRS:
        progress.note("Very many images of the pool are alike, so only the most alike of them were compared.")
    for i, j in pairs[np.argsort(apart, kind="stable")[:_PAIRS]].tolist():
        one, other = kept[i], kept[j]
        if reason[one] == KEPT == reason[other] and _alike(manifest, int(pool[other]), pool[[one]], {}):
            reason[other] = COPY


def _hashes(manifest: Manifest) -> np.ndarray:
    """Return the 64-bit difference hash of each image, uint64 [N]; kept in the cache folder."""
    digest = hashlib.sha256(bytes([_VERSION, decode.VERSION]) + manifest.digest.tobytes()).hexdigest()[:24]
    file = cache_folder() / "likeness" / f"{digest}.safetensors"
    if not file.is_file():
        found = _of_source(manifest.source)
        found = found if manifest.kept is None else found[manifest.kept]
        with atomic(file) as temporary:
            temporary.write_bytes(save({"likeness": found}))
    return load_file(file)["likeness"]


def _of_source(source: Source) -> np.ndarray:
    """Return the hash of every row of a source; of image files they were found when they were read."""
    if isinstance(source, Joined):
        return np.concatenate([_of_source(part) for part in source.parts])
    if isinstance(source, Encoded):
        return np.array([fact.likeness for fact in gather(source)], np.uint64)
    found = np.zeros(len(source.names), np.uint64)
    with progress.task("fingerprints of the images", len(found)) as shown:
        for row in range(len(found)):
            pixels = source.image(row)
            found[row] = likeness(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
            shown.advance()
    return found


def describe(manifest: Manifest, sieved: Deduplicated) -> str:
    """Return a sentence about what was left out of the pool."""
    left = [f"{count:,} {text}" for text, count in sieved.counts().items() if count]
    labelled = int((manifest.label[manifest.split == SPLITS.index("train")] != UNLABELLED).sum())
    told = f"Using {plural(len(sieved.kept), 'image')} of the pool beside {labelled:,} with labels."
    return f"{told} Left out: {'; '.join(left)}." if left else told

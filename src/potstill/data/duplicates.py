"""Deduplication of the pool: exclude duplicates of test, validation and labelled images, and of each other."""

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
from potstill.data.formats.facts import gather, likeness
from potstill.data.formats.near import ALIKE, DISTANCE, miniature, near_hashes
from potstill.data.formats.sources import Encoded
from potstill.data.joined import Joined
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.words import plural

NEAREST = 8  # images of the held-out splits whose pixels are compared with those of one pool image
DRAWN_SIDE, DRAWN_ALIKE = 64, 0.985  # small greyscale images: two handwritten ones correlate by 0.97, copies by more
_PAIRS = 20_000  # candidate pairs within the pool whose pixels are compared, the nearest first
_BLOCK = 256
_VERSION = 1

KEPT, COPY_OF_TEST, COPY_OF_VALIDATION, COPY_OF_LABELLED, COPY = range(5)
REASONS = (
    "",
    "duplicate or near duplicate of a test image",
    "duplicate or near duplicate of a validation image",
    "duplicate of a labelled image",
    "duplicate or near duplicate of another pool image",
)


@dataclass(frozen=True)
class Deduplicated:
    """The pool after deduplication. pool: int64 [P], the unlabelled train rows; reason: uint8 [P], index in REASONS."""

    pool: np.ndarray
    reason: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """The rows that are not excluded."""
        return self.pool[self.reason == KEPT]

    def counts(self) -> dict[str, int]:
        """Return the number of excluded images by reason."""
        return {text: int((self.reason == number).sum()) for number, text in enumerate(REASONS) if number}


def deduplicate(manifest: Manifest) -> Deduplicated:
    """Return the deduplicated pool. Images of a group that occurs in test or validation count as duplicates of it."""
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


def _like(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the pool rows that are duplicates, near duplicates, or of the group of a held-out row, bool [P]."""
    excluded = np.isin(manifest.digest[pool], manifest.digest[held_out])
    if manifest.group is not None:
        excluded |= np.isin(manifest.group[pool], manifest.group[held_out])
    if len(held_out):
        excluded[~excluded] = _cached(manifest, hashes, pool[~excluded], held_out)
    return excluded


def _cached(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the pool rows that are near duplicates of a held-out row, bool [P]; results are kept in the cache."""
    facts = json.dumps([_VERSION, decode.VERSION, DISTANCE, ALIKE, DRAWN_SIDE, DRAWN_ALIKE, NEAREST]).encode()
    key = hashlib.sha256(facts + np.sort(manifest.digest[held_out]).tobytes()).hexdigest()[:24]
    file = cache_folder() / "duplicates" / f"{key}.safetensors"
    digest, like = np.zeros(0, np.uint64), np.zeros(0, bool)
    if file.is_file():
        stored = load_file(file)
        digest, like = stored["digest"], stored["like"]
    new = ~np.isin(manifest.digest[pool], digest)
    if new.any():
        digest = np.concatenate([digest, manifest.digest[pool[new]]])
        like = np.concatenate([like, _compared(manifest, hashes, pool[new], held_out)])
        with atomic(file) as temporary:
            temporary.write_bytes(save({"digest": digest, "like": like}))
    return np.isin(manifest.digest[pool], digest[like])


def _compared(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    result = np.zeros(len(pool), bool)
    small: dict[int, np.ndarray] = {}
    with progress.task("Comparing the pool with held-out images", len(pool)) as task:
        for start in range(0, len(pool), _BLOCK):
            block = pool[start : start + _BLOCK]
            distance = np.bitwise_count(hashes[block][:, None] ^ hashes[held_out][None])
            for i in np.flatnonzero((distance <= DISTANCE).any(1)).tolist():
                result[start + i] = _alike(manifest, int(block[i]), held_out[_nearest(distance[i])], small)
            task.advance(len(block))
    return result


def _nearest(distance: np.ndarray) -> np.ndarray:
    count = min(NEAREST, int((distance <= DISTANCE).sum()))
    return np.argpartition(distance, count - 1)[:count]


def _alike(manifest: Manifest, row: int, others: np.ndarray, small: dict[int, np.ndarray]) -> bool:
    for other in others.tolist():
        if other not in small:
            small[other] = miniature(manifest.image(other))
    pixels = manifest.image(row)
    drawn = pixels.shape[2] == 1 and max(pixels.shape[:2]) <= DRAWN_SIDE
    least, own = DRAWN_ALIKE if drawn else ALIKE, miniature(pixels)
    return any(float(own @ small[other]) >= least for other in others.tolist())


def _drop_near(manifest: Manifest, hashes: np.ndarray, pool: np.ndarray, reason: np.ndarray) -> None:
    """Mark the later one of two near duplicates within the pool."""
    kept = np.flatnonzero(reason == KEPT)
    pairs, complete = near_hashes(hashes[pool[kept]])
    distance = np.bitwise_count(hashes[pool[kept[pairs[:, 0]]]] ^ hashes[pool[kept[pairs[:, 1]]]])
    if not complete or len(pairs) > _PAIRS:
        progress.note(f"The pool has very many similar images: only the {_PAIRS:,} most similar pairs were compared.")
    for i, j in pairs[np.argsort(distance, kind="stable")[:_PAIRS]].tolist():
        one, other = kept[i], kept[j]
        if reason[one] == KEPT == reason[other] and _alike(manifest, int(pool[other]), pool[[one]], {}):
            reason[other] = COPY


def _hashes(manifest: Manifest) -> np.ndarray:
    """Return the 64-bit difference hash of each image, uint64 [N], cached."""
    digest = hashlib.sha256(bytes([_VERSION, decode.VERSION]) + manifest.digest.tobytes()).hexdigest()[:24]
    file = cache_folder() / "likeness" / f"{digest}.safetensors"
    if not file.is_file():
        hashes = _of_source(manifest.source)
        hashes = hashes if manifest.kept is None else hashes[manifest.kept]
        with atomic(file) as temporary:
            temporary.write_bytes(save({"likeness": hashes}))
    return load_file(file)["likeness"]


def _of_source(source: Source) -> np.ndarray:
    """Return the hash of every row of a source; those of image files were computed when the files were read."""
    if isinstance(source, Joined):
        return np.concatenate([_of_source(part) for part in source.parts])
    if isinstance(source, Encoded):
        return np.array([fact.likeness for fact in gather(source)], np.uint64)
    hashes = np.zeros(len(source.names), np.uint64)
    with progress.task("Computing image hashes", len(hashes)) as task:
        for row in range(len(hashes)):
            pixels = source.image(row)
            hashes[row] = likeness(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
            task.advance()
    return hashes


def describe(manifest: Manifest, deduplicated: Deduplicated) -> str:
    """Return a sentence with the number of used and excluded images."""
    excluded = [f"{count:,} {text}" for text, count in deduplicated.counts().items() if count]
    labelled = int((manifest.label[manifest.split == SPLITS.index("train")] != UNLABELLED).sum())
    used = f"Using {plural(len(deduplicated.kept), 'image')} of the pool and {plural(labelled, 'labelled image')}."
    return f"{used} Excluded: {'; '.join(excluded)}." if excluded else used

"""Held-out rows, subsets and folds, chosen pseudo-randomly from the seed and the content hash of the images.

Every image has a pseudo-random key that depends only on the seed and its content, and images with the lowest keys are
chosen. So adding an image does not reshuffle the others, and an image stays in the same split wherever its file is.
Rows of one group, and rows with identical content, stay together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from potstill.data.draws import uniform
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest
from potstill.errors import ConfigError, DataError
from potstill.progress import note
from potstill.words import plural

TOLERANCE = 0.02  # of the share that is held out, beyond which groups are exchanged, and the reason is noted
_MOST_CHANGES = 200


@dataclass(frozen=True)
class Unit:
    """Rows that stay together, with the number of labels per class; plain dicts, because there are many units."""

    rows: np.ndarray
    counts: dict[int, int]

    @property
    def size(self) -> int:
        """The number of labelled images."""
        return sum(self.counts.values())


def hold_out(manifest: Manifest, *, split: str, fraction: float, seed: int, source: str = "train") -> Manifest:
    """Return the manifest with a fraction of the rows of `source` moved to `split` ("validation" or "test").

    fraction: of the labelled rows of each class, 0..1; at least one of a class with two rows, never all of
    them. Groups and identical images move together, with their unlabelled rows. Other splits are unchanged.
    """
    _refuse_fraction(fraction)
    units = _units(manifest, manifest.rows(source), seed, f"hold out {split}")
    available = _per_class(manifest, manifest.rows(source, labelled=True))
    wanted = np.clip(np.rint(available * fraction), np.minimum(available - 1, 1).clip(0), (available - 1).clip(0))
    chosen = _chosen(units, wanted.astype(int).tolist(), available.tolist())
    chosen = _nearer(units, chosen, fraction) if manifest.group is not None else chosen
    if not chosen:
        raise DataError(
            f"No image of {manifest.root} can be held out for {split}: every class has only one image or one group. "
            "Add images, or provide a test split."
        )
    _note_the_share(manifest, units, chosen, fraction, split)
    moved = manifest.split.copy()
    moved[np.concatenate([unit.rows for unit in chosen])] = SPLITS.index(split)
    return manifest.with_split(moved)


def _note_the_share(manifest: Manifest, units: list[Unit], chosen: list[Unit], fraction: float, split: str) -> None:
    """Say why another share is held out than was wished, where it is off by more than `TOLERANCE`."""
    share, images = _share(units, chosen), sum(unit.size for unit in units)
    if abs(share - fraction) <= TOLERANCE or images < 1 / TOLERANCE:
        return  # of fewer than 50 images, one is more than 2 points
    largest = max(unit.size for unit in units)
    reason = (
        f"groups stay together, and the largest has {plural(largest, 'image')}"
        if largest > 1
        else f"every class with two images has one in {split}"
    )
    note(
        f"{manifest.root}: {100 * share:.0f} % of the images are held out for {split} instead of "
        f"{100 * fraction:.0f} %: {reason}."
    )


def _refuse_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ConfigError(f"The fraction of images to hold out must be between 0 and 1, but is {fraction:g}.")


def _chosen(units: list[Unit], wanted: list[int], available: list[int]) -> list[Unit]:
    """Return units in the order of their keys, as long as each brings the counts nearer to those wanted."""
    lacking = list(wanted)
    chosen, left = [], []
    for unit in units:
        gain = sum(abs(lacking[k]) - abs(lacking[k] - count) for k, count in unit.counts.items())
        (chosen if gain > 0 else left).append(unit)
        if gain > 0:
            for k, count in unit.counts.items():
                lacking[k] -= count
    return chosen + _for_classes_without(left, lacking, wanted, available)


def _for_classes_without(units: list[Unit], lacking: list[int], wanted: list[int], available: list[int]) -> list[Unit]:
    """Return the smallest units that give every class one image, for classes whose groups were too large."""
    chosen: list[Unit] = []
    taken = [want - lack for want, lack in zip(wanted, lacking, strict=True)]
    without = {k for k, want in enumerate(wanted) if want and not taken[k]}
    for unit in sorted(units, key=lambda unit: sum(unit.counts.values())) if without else ():
        leaves = all(taken[k] + count < available[k] for k, count in unit.counts.items())
        if leaves and without & unit.counts.keys():
            without -= unit.counts.keys()
            chosen.append(unit)
            for k, count in unit.counts.items():
                taken[k] += count
    return chosen


def _nearer(units: list[Unit], chosen: list[Unit], fraction: float) -> list[Unit]:
    """Return the choice after moving whole groups, one by one, until the share is within `TOLERANCE`, or none helps.

    Large groups make the choice by keys miss the share. Each class keeps images on both sides, if it had them.
    """
    inside = {id(unit) for unit in chosen}
    held, left = Counter[int](), Counter[int]()
    for unit in units:
        (held if id(unit) in inside else left).update(unit.counts)
    images = held.total() + left.total()
    for _ in range(_MOST_CHANGES):
        lacking = fraction * images - held.total()
        moves = [unit for unit in units if _may_move(unit, held if id(unit) in inside else left)]
        after = {id(unit): abs(lacking + unit.size * (1 if id(unit) in inside else -1)) for unit in moves}
        best = min(moves, key=lambda unit: after[id(unit)], default=None)
        if abs(lacking) <= TOLERANCE * images or best is None or after[id(best)] >= abs(lacking):
            break
        source, target = (held, left) if id(best) in inside else (left, held)
        source.subtract(best.counts)
        target.update(best.counts)
        inside ^= {id(best)}
    return [unit for unit in units if id(unit) in inside]


def _may_move(unit: Unit, source: Counter[int]) -> bool:
    return all(source[k] > count for k, count in unit.counts.items())


def _share(units: list[Unit], chosen: list[Unit]) -> float:
    """Return the share of the labelled images that is in the chosen units, 0..1."""
    return sum(unit.size for unit in chosen) / max(sum(unit.size for unit in units), 1)


def _per_class(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    return np.bincount(manifest.label[rows], minlength=len(manifest.classes))


def _units(manifest: Manifest, rows: np.ndarray, seed: int, stream: str) -> list[Unit]:
    """Return the units of these rows that have a label, lowest key first."""
    member = _together(manifest, rows)
    identity = manifest.digest if manifest.group is None else manifest.group.view(np.uint64)
    order = np.lexsort((identity[rows], member))
    bounds = np.flatnonzero(np.diff(member[order], prepend=-1))
    keys = _keys(identity[rows][order][bounds], seed, stream)
    parts = np.split(rows[order], bounds[1:])
    units = [_unit(manifest.label, parts[position]) for position in np.argsort(keys, kind="stable")]
    return [unit for unit in units if unit.counts]


def _unit(label: np.ndarray, rows: np.ndarray) -> Unit:
    counts = Counter(label[rows].tolist())
    counts.pop(UNLABELLED, None)
    return Unit(rows, counts)


def _together(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """Return a number per row, the same for rows connected by a shared group or shared content."""
    _, same = np.unique(manifest.digest[rows], return_inverse=True)
    if manifest.group is None:
        return same
    _, group = np.unique(manifest.group[rows], return_inverse=True)
    size = same.max(initial=0) + 1 + group.max(initial=0) + 1
    edges = coo_array((np.ones(len(rows)), (same, group + same.max(initial=0) + 1)), shape=(size, size))
    return connected_components(edges, directed=False)[1][same]


def _keys(identity: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """Return a pseudo-random number in 0..1 for each identity (uint64)."""
    return uniform(seed, identity.view(np.int64), np.zeros(len(identity), np.int64), 1, stream)[:, 0]


def limit(manifest: Manifest, count: int, *, seed: int) -> Manifest:
    """Return a stratified subset with `count` train rows, and the same fraction of the other splits.

    Unlabelled rows count as a class of their own; every class keeps at least one image in each split in which it has
    any. A `count` that is not below the number of train rows is ignored with a note.
    """
    available = len(manifest.rows("train")) or len(manifest)  # images that are only measured have no train split
    if count >= available:
        note(f"All {available:,} training images of {manifest.root} are used: the limit is {count:,}.")
        return manifest
    _refuse_too_few(manifest, count, "A limit of {} images")
    kept = []
    for split in SPLITS:
        rows = manifest.rows(split)
        kept.append(stratified(manifest, rows, round(len(rows) * count / available), seed, "limit"))
    return manifest.select(np.sort(np.concatenate(kept)))


def keep_labels(manifest: Manifest, count: int, *, seed: int) -> Manifest:
    """Return the manifest with the labels of `count` train rows, stratified; the other train rows become unlabelled."""
    rows = manifest.rows("train", labelled=True)
    if count >= len(rows):
        note(f"Keeping all {len(rows):,} training labels of {manifest.root}: it has no more than {count:,}.")
        return manifest
    _refuse_too_few(manifest, count, "Keeping {} labels")
    hidden = np.setdiff1d(rows, stratified(manifest, rows, count, seed, "keep labels"))
    label = manifest.label.copy()
    label[hidden] = UNLABELLED
    return manifest.with_labels(label)


def _refuse_too_few(manifest: Manifest, count: int, what: str) -> None:
    if count < len(manifest.classes):
        raise ConfigError(
            f"{what.format(count)} cannot cover the {len(manifest.classes)} classes of {manifest.root}. "
            f"Use at least {len(manifest.classes)}, preferably ten per class."
        )


def stratified(manifest: Manifest, rows: np.ndarray, count: int, seed: int, stream: str) -> np.ndarray:
    """Return about `count` of the rows: from each class, and from the unlabelled, those with the lowest keys."""
    label = manifest.label[rows]
    values, available = np.unique(label, return_counts=True)
    keys = _keys(manifest.digest[rows], seed, stream)
    parts = []
    for value, quota in zip(values, _quotas(available, count), strict=True):
        of_class = np.flatnonzero(label == value)
        parts.append(rows[of_class[np.argsort(keys[of_class], kind="stable")[:quota]]])
    return np.concatenate(parts) if parts else rows


def _quotas(available: np.ndarray, count: int) -> np.ndarray:
    """Return integers in proportion to `available` that sum to `count`, at least 1 each if possible."""
    exact = available * count / max(available.sum(), 1)
    quota = np.clip(np.floor(exact).astype(int), 1, available)
    for position in np.argsort(quota - exact, kind="stable"):
        quota[position] += quota.sum() < count and quota[position] < available[position]
    while quota.sum() > count and quota.max() > 1:
        quota[np.argmax(np.where(quota > 1, quota - exact, -np.inf))] -= 1
    return quota


def folds(manifest: Manifest, count: int, *, seed: int) -> list[Manifest]:
    """Return `count` manifests for cross-validation: each has another fold as its validation split.

    The folds are made from the train and validation rows; they are stratified, keep groups and identical images
    together, and cover every labelled row once. The test split is unchanged. Raises `ConfigError` if a class has fewer
    images, or groups, than there are folds.
    """
    rows = np.flatnonzero(manifest.split != SPLITS.index("test"))
    units = _units(manifest, rows, seed, "folds")
    _refuse_too_many_folds(manifest, units, count)
    held = [[0] * len(manifest.classes) for _ in range(count)]
    part = np.full(len(manifest), -1)
    for unit in sorted(units, key=lambda unit: -sum(unit.counts.values())):  # large units first, equal ones by key
        best = min(range(count), key=lambda k: (sum(held[k][c] for c in unit.counts), sum(held[k]), k))
        for c, number in unit.counts.items():
            held[best][c] += number
        part[unit.rows] = best
    splits = [np.where(part == k, SPLITS.index("validation"), SPLITS.index("train")) for k in range(count)]
    test = manifest.split == SPLITS.index("test")
    return [manifest.with_split(np.where(test, manifest.split, split).astype(np.uint8)) for split in splits]


def separable(manifest: Manifest) -> dict[int, int]:
    """Return, for each class that occurs, how many of its images or groups could be in different folds."""
    identity = manifest.digest if manifest.group is None else manifest.group
    labels = np.unique(manifest.label[manifest.label != UNLABELLED]).tolist()
    return {k: len(np.unique(identity[manifest.label == k])) for k in labels}


def _refuse_too_many_folds(manifest: Manifest, units: list[Unit], count: int) -> None:
    if count < 2:
        raise ConfigError(f"The number of folds must be at least 2, but is {count}.")
    having = Counter(c for unit in units for c in unit.counts if c != UNLABELLED)
    fewest = min(having, key=lambda c: (having[c], c))  # of the classes that have any
    if having[fewest] < count:
        raise ConfigError(
            f"{count} folds need {count} images (or groups) of every class, and '{manifest.classes[fewest]}' has "
            f"{having[fewest]}. Use fewer folds, or add images."
        )

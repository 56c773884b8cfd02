"""`Manifest`: the description of a data set. Every input format is read into one; nothing downstream depends on it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

UNLABELLED = -100  # the label that torch's cross-entropy ignores
SPLITS = ("train", "validation", "test")


class Source(Protocol):
    """A source of pixels; it has no labels."""

    names: Sequence[str]
    """One name per row, for messages: a relative path, or "test/17"."""

    def image(self, row: int) -> np.ndarray:
        """Return uint8 [H, W, C] with C = 1 or 3, decoded by `data.decode`; raise `DataError` if unreadable."""
        ...

    def digest(self, row: int) -> bytes:
        """Return the sha256 of the content: the bytes of the file, or the raw pixels of an array."""
        ...

    def only(self, rows: Sequence[int]) -> Source:
        """Return a source of these rows only, small enough to be sent to a worker process."""
        ...


@dataclass(frozen=True, eq=False)
class Manifest:
    """A data set: rows of (image, label, split), and the names of the classes.

    label: int64 [N], UNLABELLED if none. split: uint8 [N], index in SPLITS. digest: uint64 [N], the first eight bytes
    of each content's sha256. group: int64 [N] or None; rows of one group stay together in one split.
    """

    source: Source
    label: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    digest: np.ndarray
    root: str = ""
    group: np.ndarray | None = None
    kept: np.ndarray | None = None  # int64 [N], rows of `source`; None is all of them

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, split: str, *, labelled: bool | None = None) -> np.ndarray:
        """Return the row indices (int64) of a split; `labelled` True or False keeps only such rows."""
        chosen = self.split == SPLITS.index(split)
        if labelled is not None:
            chosen &= (self.label != UNLABELLED) == labelled
        return np.flatnonzero(chosen)

    def source_row(self, row: int) -> int:
        """Return the row of `source` that holds this row's image."""
        return int(row if self.kept is None else self.kept[row])

    def name(self, row: int) -> str:
        """Return the name of a row's image, for messages."""
        return self.source.names[self.source_row(row)]

    def image(self, row: int) -> np.ndarray:
        """Return a row's pixels, uint8 [H, W, C]."""
        return self.source.image(self.source_row(row))

    def select(self, rows: np.ndarray) -> Manifest:
        """Return a manifest of these rows, in this order; rows are renumbered."""
        return dataclasses.replace(
            self,
            label=self.label[rows],
            split=self.split[rows],
            digest=self.digest[rows],
            group=None if self.group is None else self.group[rows],
            kept=np.asarray(rows) if self.kept is None else self.kept[rows],
        )

    def with_labels(self, label: np.ndarray) -> Manifest:
        """Return the same images with other labels (int64 [N])."""
        return dataclasses.replace(self, label=label)

    def with_split(self, split: np.ndarray) -> Manifest:
        """Return the same images with other splits (uint8 [N])."""
        return dataclasses.replace(self, split=split)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over contents, labels, splits and class names; independent of the location of the files."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for column in (self.digest, self.label, self.split):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

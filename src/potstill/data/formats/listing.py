"""`Listing`: the images of a data set with their labels and splits, before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from potstill.data.formats.files import Left
from potstill.data.formats.sources import Encoded
from potstill.errors import DataError
from potstill.progress import note


@dataclass(frozen=True, slots=True)
class Entry:
    """One image with its metadata: `label` is None if unlabelled, `split` one of SPLITS."""

    name: str
    label: str | None = None
    split: str = "train"
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """Entries and, in the same order, the source of their bytes.

    root: the path that the user gave. named: classes that exist even without images. left: files that are ignored.
    """

    root: str
    entries: Sequence[Entry]
    source: Encoded
    named: Sequence[str] = ()
    left: Left = field(default_factory=Left)

    def note_left(self) -> None:
        """Note the files that are ignored."""
        for sentence in self.left.sentences(self.root):
            note(sentence)

    def refuse_empty(self) -> None:
        """Raise `DataError` if there are no images."""
        if not self.entries:
            raise DataError(f"{self.root} holds no images. Give a folder of images, or of one folder per class.")

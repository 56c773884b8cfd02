"""`Listing`: what a format of image files says before any image is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from potstill.data.formats.files import Left
from potstill.data.formats.sources import Encoded


@dataclass(frozen=True)
class Entry:
    """One image as its format describes it: `label` None where unlabelled, `split` one of SPLITS."""

    name: str
    label: str | None = None
    split: str = "train"
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """Entries and, in the same order, where their bytes lie.

    root: what the user typed. named: classes that exist even if they have no image. left: files that are not listed.
    """

    root: str
    entries: Sequence[Entry]
    source: Encoded
    named: Sequence[str] = ()
    left: Left = field(default_factory=Left)

"""`Survey`: the facts from one pass over a data set, on which the findings are based."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from potstill.data.formats import list_images
from potstill.data.formats.facts import Facts, facts_of_pixels, gather
from potstill.data.formats.files import Left, in_natural_order, scan
from potstill.data.formats.groups import groups_of
from potstill.data.formats.leaving_out import leave_out
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Files
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.errors import DataError
from potstill.progress import Display, task, use


@dataclass(frozen=True)
class Survey:
    """Columns over all images, readable or not; `label` is a class index or UNLABELLED, `split` an index in SPLITS.

    refusals: why the format was not understood; the images are then listed without labels. notes: the notes from
    reading it. groups: the key of each row's group, None if there are no groups.
    """

    root: str
    source: Source
    facts: Sequence[Facts]
    label: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    left: Left = field(default_factory=Left)
    groups: Sequence[str] | None = None
    refusals: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def readable(self) -> np.ndarray:
        """bool [N]: which images can be used."""
        return np.array([not fact.fault for fact in self.facts], dtype=bool)

    @property
    def paths(self) -> Sequence[str]:
        """One name per row, relative to the root."""
        return self.source.names

    @property
    def leaving_out(self) -> str:
        """How images are left out: by --fix, or, where it would refuse the layout, after that is mended."""
        if self.refusals:
            return "leave them out with --fix, after the layout is mended."
        return leave_out(self.source, self.root)

    def counts(self, split: str) -> np.ndarray:
        """Return int64 [K], the number of readable images of each class in a split."""
        chosen = self.readable & (self.label != UNLABELLED) & (self.split == SPLITS.index(split))
        return np.bincount(self.label[chosen], minlength=len(self.classes))


def survey(path: str | Path | Manifest, *, group: str | None = None) -> Survey:
    """Read every image of a data set; raise `DataError` only if there are no images."""
    if isinstance(path, Manifest):
        return _of_arrays(path, [])
    refusals: list[str] = []
    with use(Display()) as display:  # the notes of the format become findings
        try:
            images = list_images(path, allow_empty=True, trains=False)
        except DataError as error:
            if not Path(path).expanduser().is_dir():
                raise
            refusals = error.problems
            images = _without_labels(Path(path).expanduser())
    if isinstance(images, Manifest):
        return _of_arrays(images, display.notes)
    return _of_listing(images, refusals, display.notes, group)


def _without_labels(root: Path) -> Listing:
    top, left = scan(root)
    names = list(top)
    return Listing(str(root), [Entry(name) for name in names], Files(root, names), (), left)


def _of_listing(listing: Listing, refusals: Sequence[str], notes: Sequence[str], group: str | None) -> Survey:
    if not listing.entries:
        listing.note_left()  # else they become a finding
        listing.refuse_empty()
    classes = in_natural_order([*listing.named, *(e.label for e in listing.entries if e.label is not None)])
    number = {name: k for k, name in enumerate(classes)} | {None: UNLABELLED}
    facts = gather(listing.source)
    return Survey(
        listing.root,
        listing.source,
        facts,
        np.array([number[entry.label] for entry in listing.entries], dtype=np.int64),
        np.array([SPLITS.index(entry.split) for entry in listing.entries], dtype=np.uint8),
        tuple(classes),
        listing.left,
        groups_of(listing.root, listing.entries, listing.source, facts, group),
        refusals,
        notes,
    )


def _of_arrays(manifest: Manifest, notes: Sequence[str]) -> Survey:
    facts = list(_facts_of_arrays(manifest))
    return Survey(manifest.root, manifest.source, facts, manifest.label, manifest.split, manifest.classes, notes=notes)


def _facts_of_arrays(manifest: Manifest) -> Iterator[Facts]:
    with task("Reading images", len(manifest)) as shown:
        for row in range(len(manifest)):
            pixels = manifest.image(row)
            grey = ("grey",) if pixels.shape[2] == 1 else ()
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            yield facts_of_pixels(pixels, digest, size=pixels.nbytes, traits=grey)
            shown.advance()

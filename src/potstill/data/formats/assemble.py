"""From a listing of image files to a `Manifest`, or to errors.

All file formats share this module, so class order, groups, unreadable images and the rules for a data set are the
same for all.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from potstill.data.formats.facts import Facts, gather
from potstill.data.formats.files import in_natural_order
from potstill.data.formats.groups import groups_of
from potstill.data.formats.leaving_out import leave_out
from potstill.data.formats.listing import Listing
from potstill.data.formats.rules import refuse_leaks, refuse_unusable
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import plural

MOST_UNREADABLE = 0.01  # of all images; with more, the data set is refused
_NOTED = {  # trait: predicate for one image, for several
    "16-bit": ("is 16-bit and was scaled by its bit depth", "are 16-bit and were scaled by their bit depth"),
    "low": (
        "uses less than a quarter of its 16 bits",
        "use less than a quarter of their 16 bits and are dark",
    ),
    "float": ("holds floats and was scaled from 0..1", "hold floats and were scaled from 0..1"),
    "rotated": ("was rotated (EXIF orientation)", "were rotated (EXIF orientation)"),
    "alpha": ("has transparency and was composited on white", "have transparency and were composited on white"),
    "animated": ("is animated; only the first frame is used", "are animated; only the first frame is used"),
}


def manifest_of_listing(
    listing: Listing, *, group: str | None = None, allow_empty: bool = False, trains: bool = True
) -> Manifest:
    """Return the manifest of the images of a listing.

    group: which images stay in one split, as `groups.groups_of` takes it. trains: whether the rules for training apply.
    """
    listing.note_left()
    listing.refuse_empty()
    facts = gather(listing.source)
    rows = _readable(listing, facts)
    _note_traits(listing.root, [facts[row] for row in rows])
    entries = [listing.entries[row] for row in rows]
    source = listing.source if len(rows) == len(facts) else listing.source.only(rows)
    manifest = manifest_of(
        source,
        [bytes.fromhex(facts[row].sha256) for row in rows],
        labels=[entry.label for entry in entries],
        splits=[entry.split for entry in entries],
        groups=groups_of(listing.root, entries, source, [facts[row] for row in rows], group),
        root=listing.root,
        classes=in_natural_order([*listing.named, *(e.label for e in entries if e.label is not None)]),
    )
    if trains:
        refuse_unusable(manifest, allow_empty=allow_empty)
        refuse_leaks(manifest)
    return manifest


def manifest_of(
    source: Source,
    digests: Sequence[bytes],
    *,
    labels: Sequence[str | None],
    splits: Sequence[str],
    root: str,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
) -> Manifest:
    """Return the manifest of columns, one value a row; raise `DataError` for a class that cannot be written."""
    odd = [name for name in classes if not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name)]
    if odd:
        raise DataError(f"{root}: the class {odd[0]!r} has a name that is not UTF-8. Rename its folder, or its label.")
    number = {name: position for position, name in enumerate(classes)}
    return Manifest(
        source=source,
        label=np.array([UNLABELLED if label is None else number[label] for label in labels], dtype=np.int64),
        split=np.array([SPLITS.index(split) for split in splits], dtype=np.uint8),
        classes=tuple(classes),
        digest=np.frombuffer(b"".join(d[:8] for d in digests), dtype=">u8").astype(np.uint64),
        root=root,
        group=None if groups is None else np.array([_key(group) for group in groups], dtype=np.int64),
    )


def _readable(listing: Listing, facts: Sequence[Facts]) -> list[int]:
    """Return the rows of readable images; note the others, or raise `DataError` if they are too many."""
    bad = [fact.problem for fact in facts if fact.fault]
    if not bad:
        return list(range(len(facts)))
    shown = bad[:5] + ([f"(and {len(bad) - 5} more)"] if len(bad) > 5 else [])
    if len(bad) > MOST_UNREADABLE * len(facts):
        raise DataError(
            f"{listing.root}: {len(bad)} of {plural(len(facts), 'image')} cannot be read, which is more than 1 %. "
            f"Repair or remove them, or {leave_out(listing.source, listing.root, table=', and use clean.csv')}.",
            *shown,
        )
    note(f"{listing.root}: skipped {len(bad)} of {plural(len(facts), 'image')} (unreadable). " + " ".join(shown))
    return [row for row, fact in enumerate(facts) if not fact.fault]


def _note_traits(root: str, facts: Sequence[Facts]) -> None:
    counts = Counter(trait for fact in facts for trait in fact.traits)
    for trait, (one, several) in _NOTED.items():
        if counts[trait]:
            predicate = one if counts[trait] == 1 else several
            note(f"{root}: {counts[trait]:,} of {plural(len(facts), 'image')} {predicate}.")


def _key(group: str) -> int:
    """Return a number for a group that does not depend on the other groups."""
    return int.from_bytes(hashlib.sha256(os.fsencode(group)).digest()[:8], "big", signed=True)

"""From a listing of image files to a `Manifest`, or to sentences about what is wrong.

Every format of files ends here, so class order, groups, unreadable images and the rules a data set must keep are
the same for all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from potstill.data.formats.facts import Facts, gather
from potstill.data.formats.files import in_natural_order
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.rules import refuse_leaks, refuse_unusable
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.errors import ConfigError, DataError
from potstill.progress import note

MOST_UNREADABLE = 0.01  # of all images; more than these and the set itself is in doubt
_TOLD = {
    "16-bit": "are 16-bit and were scaled by their depth",
    "float": "hold floats and were scaled from 0..1",
    "turned": "were turned upright by their EXIF orientation",
    "alpha": "have transparency, which was laid on white",
    "animated": "are animations, of which the first frame was taken",
}


def manifest_of_listing(listing: Listing, *, group: str | None = None, allow_empty: bool = False) -> Manifest:
    """Return the manifest of the images of a listing.

    group: a regular expression over the file name; its first group (or whole match) is the key of a group.
    """
    for sentence in listing.left.sentences(listing.root):
        note(sentence)
    if not listing.entries:
        raise DataError(f"{listing.root} holds no images. Give a folder of images, or of one folder per class.")
    facts = gather(listing.source)
    rows = _readable(listing, facts)
    _tell_traits(listing.root, [facts[row] for row in rows])
    entries = [listing.entries[row] for row in rows]
    manifest = manifest_of(
        listing.source if len(rows) == len(facts) else listing.source.only(rows),
        [bytes.fromhex(facts[row].sha256) for row in rows],
        labels=[entry.label for entry in entries],
        splits=[entry.split for entry in entries],
        groups=groups_of(listing.root, entries, group),
        root=listing.root,
        classes=in_natural_order([*listing.named, *(e.label for e in entries if e.label is not None)]),
        allow_empty=allow_empty,
    )
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
    allow_empty: bool = False,
) -> Manifest:
    """Return a manifest after checking that its labels can be learned from."""
    number = {name: position for position, name in enumerate(classes)}
    manifest = Manifest(
        source=source,
        label=np.array([UNLABELLED if label is None else number[label] for label in labels], dtype=np.int64),
        split=np.array([SPLITS.index(split) for split in splits], dtype=np.uint8),
        classes=tuple(classes),
        digest=np.frombuffer(b"".join(d[:8] for d in digests), dtype=">u8").astype(np.uint64),
        root=root,
        group=None if groups is None else np.array([_key(group) for group in groups], dtype=np.int64),
    )
    refuse_unusable(manifest, allow_empty=allow_empty)
    return manifest


def _readable(listing: Listing, facts: Sequence[Facts]) -> list[int]:
    """Return the rows of readable images; name the others, and refuse where there are too many."""
    bad = [fact.problem for fact in facts if fact.fault]
    if not bad:
        return list(range(len(facts)))
    shown = bad[:5] + ([f"(and {len(bad) - 5} more)"] if len(bad) > 5 else [])
    if len(bad) > MOST_UNREADABLE * len(facts):
        raise DataError(
            f"{listing.root}: {len(bad)} of {len(facts)} images cannot be read, which is more than 1 %. Mend or "
            f"remove them; or type: potstill check {listing.root} --fix clean.csv, and use clean.csv.",
            *shown,
        )
    note(f"{listing.root}: skipped {len(bad)} of {len(facts)} images that cannot be read. " + " ".join(shown))
    return [row for row, fact in enumerate(facts) if not fact.fault]


def _tell_traits(root: str, facts: Sequence[Facts]) -> None:
    count = Counter(trait for fact in facts for trait in fact.traits)
    told = [f"{count[trait]} {what}" for trait, what in _TOLD.items() if count[trait]]
    if told:
        note(f"{root}: of {len(facts)} images, {'; '.join(told)}.")


def groups_of(root: str, entries: Sequence[Entry], pattern: str | None) -> list[str] | None:
    """Return the key of each entry's group: as given, or by a pattern over file names; None where there are none."""
    if pattern is None:
        given = [entry.group for entry in entries]
        return None if not any(given) else [g or f"\0{e.name}" for g, e in zip(given, entries, strict=True)]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group {pattern!r} is not a regular expression: {error}.") from None
    found = [compiled.search(entry.name.rsplit("/", 1)[-1]) for entry in entries]
    alone = sum(match is None for match in found)
    if alone == len(entries):
        raise ConfigError(
            f"--group {pattern!r} matches no file name under {root}, such as '{entries[0].name}'. "
            "Give a pattern whose first group is the same for images that belong together, such as '^(\\d+)_'."
        )
    if alone:
        note(f"--group {pattern!r} does not match {alone} of {len(entries)} file names; each is a group of its own.")
    part = min(compiled.groups, 1)
    return [
        f"\0{entry.name}" if match is None else match.group(part) or ""
        for entry, match in zip(entries, found, strict=True)
    ]


def _key(group: str) -> int:
    """Return a number for a group that does not depend on which other groups there are."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big", signed=True)

"""From a list of image files with what their format says of them to a `Manifest`, or to sentences about what is wrong.

Every format of files ends here, so class order, groups, unreadable images and the rules a data set must keep are
the same for all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.formats.facts import Facts, gather
from potstill.data.formats.files import Files, natural
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.errors import ConfigError, DataError
from potstill.progress import note

MOST_UNREADABLE = 0.01  # of all images; more than these and the set itself is in doubt


@dataclass(frozen=True)
class Entry:
    """One image as its format describes it: `label` None where unlabelled, `split` one of SPLITS."""

    name: str
    label: str | None = None
    split: str = "train"
    group: str | None = None


def manifest_of_files(
    root: Path, entries: Sequence[Entry], *, group: str | None, allow_empty: bool, named: Sequence[str] = ()
) -> Manifest:
    """Return the manifest of image files under `root`.

    group: a regular expression over the file name; its first group (or whole match) is the key of a group.
    named: classes that the format names even if they have no image.
    """
    if not entries:
        raise DataError(f"{root} holds no images. Give a folder of images, or of one folder per class.")
    facts = gather(root, [entry.name for entry in entries])
    readable = _readable(root, entries, facts)
    entries = [entries[row] for row in readable]
    digests = [bytes.fromhex(facts[row].sha256) for row in readable]
    return manifest_of(
        Files(root, [entry.name for entry in entries]),
        digests,
        labels=[entry.label for entry in entries],
        splits=[entry.split for entry in entries],
        groups=_groups(root, entries, group),
        root=root,
        classes=in_natural_order([*named, *(entry.label for entry in entries if entry.label is not None)]),
        allow_empty=allow_empty,
    )


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names, class2 before class10."""
    return sorted(set(names), key=natural)


def manifest_of(
    source: Source,
    digests: Sequence[bytes],
    *,
    labels: Sequence[str | None],
    splits: Sequence[str],
    root: Path | str,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    allow_empty: bool = False,
) -> Manifest:
    """Return a manifest after checking that it can be learned from; `classes` are by default in natural order."""
    if classes is None:
        classes = in_natural_order(label for label in labels if label is not None)
    number = {name: position for position, name in enumerate(classes)}
    manifest = Manifest(
        source=source,
        label=np.array([UNLABELLED if label is None else number[label] for label in labels], dtype=np.int64),
        split=np.array([SPLITS.index(split) for split in splits], dtype=np.uint8),
        classes=tuple(classes),
        digest=np.frombuffer(b"".join(d[:8] for d in digests), dtype=">u8").astype(np.uint64),
        root=str(root),
        group=None if groups is None else np.array([_key(group) for group in groups], dtype=np.int64),
    )
    refuse_unusable(manifest, allow_empty=allow_empty)
    return manifest


def refuse_unusable(manifest: Manifest, *, allow_empty: bool) -> None:
    """Raise `DataError` with everything that makes the labels useless: one class, empty or unknown classes."""
    if not manifest.classes:
        note(f"{manifest.root} has no classes: all {len(manifest)} images are taken as unlabelled.")
        return
    problems = [*_one_class(manifest), *([] if allow_empty else _empty(manifest)), *_only_in_test(manifest)]
    if problems:
        raise DataError(*problems)


def _one_class(manifest: Manifest) -> list[str]:
    if len(manifest.classes) > 1:
        return []
    return [
        f"{manifest.root} has one class only, '{manifest.classes[0]}', and there is nothing to tell it from. "
        "Give the folder that holds one folder per class."
    ]


def _counts(manifest: Manifest, split: str) -> np.ndarray:
    return np.bincount(manifest.label[manifest.rows(split, labelled=True)], minlength=len(manifest.classes))


def _empty(manifest: Manifest) -> list[str]:
    counts = sum(_counts(manifest, split) for split in SPLITS)
    names = [name for name, count in zip(manifest.classes, counts, strict=True) if not count]
    if not names:
        return []
    return [
        f"{manifest.root} has no image of {_quoted(names)}. Add some, remove the class, "
        "or give --allow-empty if it is meant to stay without images."
    ]


def _only_in_test(manifest: Manifest) -> list[str]:
    trained = _counts(manifest, "train")
    if not trained.any():
        return []
    problems = []
    for split in SPLITS[1:]:
        lost = np.flatnonzero((_counts(manifest, split) > 0) & (trained == 0))
        if len(lost):
            names = _quoted([manifest.classes[k] for k in lost])
            problems.append(
                f"{manifest.root}: the {split} split has images of {names}, of which the train split has none, so "
                "they cannot be learned. Add some to train, or check that both splits name their classes alike."
            )
    return problems


def _quoted(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:5]] + ([f"{len(names) - 5} more classes"] if len(names) > 5 else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _readable(root: Path, entries: Sequence[Entry], facts: Sequence[Facts]) -> list[int]:
    """Return the rows of readable images; name the others, and refuse where there are too many."""
    bad = [fact.problem for fact in facts if fact.problem]
    if not bad:
        return list(range(len(entries)))
    shown = bad[:5] + ([f"(and {len(bad) - 5} more)"] if len(bad) > 5 else [])
    if len(bad) > MOST_UNREADABLE * len(entries):
        raise DataError(
            f"{root}: {len(bad)} of {len(entries)} images cannot be read, which is more than 1 %. Mend or remove "
            f"them; or type: potstill check {root} --fix clean.csv, and use clean.csv.",
            *shown,
        )
    note(f"{root}: skipped {len(bad)} of {len(entries)} images that cannot be read. " + " ".join(shown))
    return [row for row, fact in enumerate(facts) if not fact.problem]


def _groups(root: Path, entries: Sequence[Entry], pattern: str | None) -> list[str] | None:
    if pattern is None:
        given = [entry.group for entry in entries]
        return None if all(g is None for g in given) else [g or e.name for g, e in zip(given, entries, strict=True)]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group {pattern!r} is not a regular expression: {error}.") from None
    found = [compiled.search(entry.name.rsplit("/", 1)[-1]) for entry in entries]
    alone = sum(match is None for match in found)
    if alone == len(entries):
        raise ConfigError(f"--group {pattern!r} matches no file name under {root}, such as '{entries[0].name}'.")
    if alone:
        note(f"--group {pattern!r} does not match {alone} of {len(entries)} file names; each is a group of its own.")
    return [
        entry.name if match is None else match.group(1 if compiled.groups else 0) or ""
        for entry, match in zip(entries, found, strict=True)
    ]


def _key(group: str) -> int:
    """Return a number for a group that does not depend on which other groups there are."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big", signed=True)

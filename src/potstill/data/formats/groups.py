r"""Images that belong together and must stay in one split: frames of one film, photos of one patient, bursts.

A group comes from the column `group` of a table, or from `--group`: a regular expression over the path below the data
root, or one of two words that need no names: `near-copies` (images that are near-duplicates of each other, directly or
through others) and `exif` (photos of one camera, each taken at most `BURST` seconds after the one before).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from potstill.data.formats.facts import Facts
from potstill.data.formats.listing import Entry
from potstill.data.formats.near_pairs import near_pairs
from potstill.data.manifest import Source
from potstill.errors import ConfigError
from potstill.progress import note
from potstill.words import argument

NEAR_COPIES, EXIF = "near-copies", "exif"
BURST = 60  # seconds
_CLASS = "{class}"
_LONGEST = 1000  # characters of a pattern
_SECONDS = 10.0  # for 100,000 names, which take a sensible pattern less than one second
_SEARCH = """
import json, re, sys
pattern, items = json.load(sys.stdin)
compiled, keys = {}, []
for name, label in items:
    if label not in compiled:
        literal = None if label is None and "{class}" in pattern else re.escape(label or "")
        compiled[label] = None if literal is None else re.compile(pattern.replace("{class}", literal))
    match = compiled[label] and compiled[label].search(name)
    parts = match and [part or "" for part in match.groups()] or [match and match[0]]
    keys.append(None if match is None else [label or ""] * ("{class}" in pattern) + parts)
json.dump(keys, sys.stdout)
"""


def groups_of(
    root: str, entries: Sequence[Entry], source: Source, facts: Sequence[Facts], pattern: str | None
) -> list[str] | None:
    r"""Return the key of each entry's group; None if there are no groups.

    source, facts: of the same images, in the same order. pattern: None for the groups that the entries bring, else
    `near-copies`, `exif` or a regular expression; its groups together (the whole match if it has none) are the key, and
    `{class}` in it stands for the class of the image and becomes part of the key. Images without a key form groups of
    their own. Raises `ConfigError` if the pattern is no regular expression, matches nothing or takes too long.
    """
    if pattern is None:
        keys = [entry.group or None for entry in entries]
        return None if not any(keys) else _completed(entries, keys)
    if pattern == NEAR_COPIES:
        return _completed(entries, keys_of(near_components(source, facts), facts))
    if pattern == EXIF:
        return _completed(entries, keys_of(bursts(facts), facts))
    keys = _found(pattern, entries)
    unmatched = keys.count(None)
    if unmatched == len(entries):
        raise ConfigError(
            f"--group {pattern!r} matches no path below {root}, such as '{entries[0].name}'. Give a pattern whose "
            "groups are the same for images that belong together, such as '([^/]+)_\\d+\\.' for cat/track7_003.png; "
            f"or type: potstill check {argument(root)}"
        )
    if unmatched:
        note(f"--group {pattern!r} does not match {unmatched} of {len(entries)} paths; each forms its own group.")
    return _completed(entries, keys)


def _completed(entries: Sequence[Entry], keys: Sequence[str | None]) -> list[str]:
    return [f"\0{entry.name}" if key is None else key for entry, key in zip(entries, keys, strict=True)]


def keys_of(group: np.ndarray, facts: Sequence[Facts]) -> list[str | None]:
    """Return the keys of group numbers, int [N]: the lowest hash of its images, so that other images do not matter.

    None where a group has one image, or its number is negative.
    """
    lowest: dict[int, str] = {}
    for number, fact in zip(group.tolist(), facts, strict=True):
        lowest[number] = min(lowest.get(number, fact.sha256), fact.sha256)
    sizes = Counter(group.tolist())
    return [lowest[number] if number >= 0 and sizes[number] > 1 else None for number in group.tolist()]


def _found(pattern: str, entries: Sequence[Entry]) -> list[str | None]:
    """Return the key of each entry by a regular expression; searched in a process, since some never end."""
    _refuse_pattern(pattern)
    items = json.dumps([pattern, [(entry.name, entry.label) for entry in entries]])
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    seconds = _SECONDS * (1 + len(entries) / 100_000)
    try:
        done = subprocess.run(command, input=items, capture_output=True, text=True, timeout=seconds, check=True)  # noqa: S603
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        reason = f"was not finished after {seconds:.0f} s" if late else "cannot be searched for"
        raise ConfigError(
            f"--group {pattern!r} {reason}. Repetitions within repetitions, such as '(a+)+', take exponential time; "
            "write each repetition once, such as '([^/]+)_\\d+\\.'."
        ) from None
    return [None if parts is None else "\0".join(parts) for parts in json.loads(done.stdout)]


def _refuse_pattern(pattern: str) -> None:
    try:
        re.compile(pattern.replace(_CLASS, "x"))
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"--group {pattern!r} is not a regular expression: {error}.") from None
    if len(pattern) > _LONGEST:
        raise ConfigError(f"--group takes a pattern of at most {_LONGEST:,} characters, and this has {len(pattern):,}.")


def near_components(source: Source, facts: Sequence[Facts]) -> np.ndarray:
    """Return a number for each image, int64 [N]: the same for images connected by near-duplicates or equal bytes."""
    pairs = np.array(near_pairs(source, facts)[0], dtype=np.int64).reshape(-1, 2)
    first: dict[str, int] = {}
    same = [(first.setdefault(fact.sha256, row), row) for row, fact in enumerate(facts) if fact.sha256]
    edges = np.concatenate([pairs, np.array(same, dtype=np.int64).reshape(-1, 2)])
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(facts),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def bursts(facts: Sequence[Facts]) -> np.ndarray:
    """Return a number for each image, int64 [N]: the same for one camera's photos of one burst, -1 without a time."""
    moments = [(fact.camera, seconds, row) for row, fact in enumerate(facts) if (seconds := _seconds(fact.taken))]
    number, group, before = 0, np.full(len(facts), -1, np.int64), ("", 0.0)
    for camera, seconds, row in sorted(moments):
        number += (camera, True) != (before[0], seconds - before[1] <= BURST)
        group[row], before = number, (camera, seconds)
    return group


def _seconds(taken: str) -> float | None:
    try:
        return (datetime.strptime(taken, "%Y:%m:%d %H:%M:%S") - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001, DTZ007
    except ValueError:
        return None

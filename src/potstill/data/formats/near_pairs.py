"""Which images of a data set are near-duplicates of each other: resized, saved again, or neighbouring frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from potstill.artifacts import write_text
from potstill.data.cache import cache_folder
from potstill.data.decode import VERSION
from potstill.data.formats.facts import Facts
from potstill.data.formats.near import ALIKE, DISTANCE, miniature, near_hashes
from potstill.data.manifest import Source
from potstill.errors import UserError
from potstill.progress import note, task

_MOST_PAIRS = 20_000  # candidate pairs whose pixels are compared, the closest first
_SMALLEST = 24  # pixels per side, below which different digits are as similar as duplicates
_VERSION = 1


def near_pairs(source: Source, facts: Sequence[Facts]) -> tuple[list[list[int]], bool]:
    """Return pairs of rows that are near-duplicates (not exact copies), and whether the search is complete; cached.

    facts: of the rows of `source`, in its order.
    """
    rows = _representatives(facts)
    digest = hashlib.sha256(json.dumps([_VERSION, VERSION, DISTANCE, ALIKE]).encode())
    digest.update("".join(facts[row].sha256 for row in rows).encode())
    file = cache_folder() / "near" / f"{digest.hexdigest()[:24]}.json"
    try:
        pairs, complete = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pairs, complete = _search(source, facts, rows)
        _store(file, [pairs, complete])
    return [sorted((rows[i], rows[j])) for i, j in pairs], complete


def _store(file: Path, value: object) -> None:
    try:
        write_text(file, json.dumps(value))
    except (UserError, OSError) as error:
        note(f"The near-duplicates found cannot be cached, so the next check searches for them again: {error}")


def _representatives(facts: Sequence[Facts]) -> list[int]:
    """Return one row per distinct content that can be compared, sorted by content, independent of file order."""
    first: dict[str, int] = {}
    for row, fact in enumerate(facts):
        if "blank" not in fact.traits and min(fact.width, fact.height) >= _SMALLEST:
            first.setdefault(fact.sha256, row)
    return [first[key] for key in sorted(first)]


def _search(source: Source, facts: Sequence[Facts], rows: list[int]) -> tuple[list[list[int]], bool]:
    hashes = np.array([facts[row].likeness for row in rows], dtype=np.uint64)
    pairs, complete = near_hashes(hashes)
    if len(pairs) > _MOST_PAIRS:
        apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
        pairs, complete = pairs[np.argsort(apart, kind="stable")[:_MOST_PAIRS]], False
    small: dict[int, np.ndarray] = {}
    with task("Comparing similar images", len(pairs)) as shown:
        confirmed = []
        for i, j in pairs.tolist():
            for place in (i, j):
                if place not in small:
                    small[place] = miniature(source.image(rows[place]))
            if float(small[i] @ small[j]) >= ALIKE:
                confirmed.append([i, j])
            shown.advance()
    return confirmed, complete

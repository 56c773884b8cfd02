"""Findings about images that are there more than once: within a split, across splits, with other labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from potstill.artifacts import write_text
from potstill.data.cache import cache_folder
from potstill.data.checks.finding import Finding, number
from potstill.data.checks.near import ALIKE, DISTANCE, miniature, near_hashes
from potstill.data.checks.survey import Survey
from potstill.data.decode import VERSION
from potstill.data.manifest import SPLITS, UNLABELLED
from potstill.errors import UserError
from potstill.progress import note, task

_TRAIN, _VALIDATION, _TEST = range(3)
_MOST_PAIRS = 20_000  # near pairs whose pixels are compared; the nearest first
_SMALLEST = 24  # pixels a side, below which different digits are as alike as copies
_VERSION = 1


def exact(survey: Survey) -> Iterator[Finding]:
    """Yield findings about images whose content is the same byte for byte."""
    digests = np.array([fact.sha256 for fact in survey.facts])
    groups = _groups(np.flatnonzero(survey.readable), digests)
    yield from _judged(survey, groups, "copies", "an exact copy", _drop_exact)


def near(survey: Survey) -> Iterator[Finding]:
    """Yield findings about images that are nearly the same: resized, saved again, slightly changed."""
    pairs, complete = near_pairs(survey)
    yield from _judged(survey, pairs, "near-copies", "a nearly equal copy", _drop_near)
    if not complete:
        text = "Very many images are alike, so the search for nearly equal ones was cut short."
        yield Finding("near-copies-cut-short", "info", 1, text, "Exact copies were all found.")


def _groups(rows: np.ndarray, digests: np.ndarray) -> list[list[int]]:
    """Return the rows that share their content, by groups of two and more, in the order of their first."""
    order = rows[np.argsort(digests[rows], kind="stable")]
    parts = np.split(order, np.flatnonzero(digests[order][1:] != digests[order][:-1]) + 1)
    return sorted(sorted(part.tolist()) for part in parts if len(part) > 1)


def near_pairs(survey: Survey) -> tuple[list[list[int]], bool]:
    """Return pairs of rows with nearly equal images (not exact copies), and whether all were found; cached."""
    rows = _representatives(survey)
    digest = hashlib.sha256(json.dumps([_VERSION, VERSION, DISTANCE, ALIKE]).encode())
    digest.update("".join(survey.facts[row].sha256 for row in rows).encode())
    file = cache_folder() / "near" / f"{digest.hexdigest()[:24]}.json"
    try:
        pairs, complete = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pairs, complete = _search(survey, rows)
        _keep(file, [pairs, complete])
    return [sorted((rows[i], rows[j])) for i, j in pairs], complete


def _keep(file, value: object) -> None:
    try:
        write_text(file, json.dumps(value))
    except (UserError, OSError) as error:
        note(f"The search for nearly equal images could not be kept for the next time: {error}")


def _representatives(survey: Survey) -> list[int]:
    """Return one row of each content that can be compared, by content, so that the order of files is moot."""
    first: dict[str, int] = {}
    for row, fact in enumerate(survey.facts):
        if "blank" not in fact.traits and min(fact.width, fact.height) >= _SMALLEST:
            first.setdefault(fact.sha256, row)
    return [first[key] for key in sorted(first)]


def _search(survey: Survey, rows: list[int]) -> tuple[list[list[int]], bool]:
    hashes = np.array([survey.facts[row].likeness for row in rows], dtype=np.uint64)
    pairs, complete = near_hashes(hashes)
    if len(pairs) > _MOST_PAIRS:
        apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
        pairs, complete = pairs[np.argsort(apart, kind="stable")[:_MOST_PAIRS]], False
    small: dict[int, np.ndarray] = {}
    with task("Comparing images that look alike", len(pairs)) as shown:
        found = []
        for i, j in pairs.tolist():
            for place in (i, j):
                if place not in small:
                    small[place] = miniature(survey.source.image(rows[place]))
            if float(small[i] @ small[j]) >= ALIKE:
                found.append([i, j])
            shown.advance()
    return found, complete


def _judged(
    survey: Survey,
    groups: Sequence[list[int]],
    code: str,
    alike: str,
    drop: Callable[[Survey, list[int], str], list[int]],
) -> Iterator[Finding]:
    """Yield a finding for each way in which groups of equal rows do harm; each group counts where it harms most."""
    kinds: dict[str, list[list[int]]] = {}
    for group in groups:
        kinds.setdefault(_harm(survey, group), []).append(group)
    for harm, (exactly, nearly, what, where, advice) in _HARMS.items():
        if harm in kinds:
            rows = [row for group in kinds[harm] for row in drop(survey, group, harm)]
            count = len(kinds[harm])
            text = f"{number(count, f'{what} has', f'{what}s have')} {alike} {where}."
            advice = advice if code == "copies" else "Look at them with --html FILE."
            fix = f"{advice} Leave them out: potstill check {survey.root} --fix clean.csv" if rows else advice
            severity = exactly if code == "copies" else nearly
            yield Finding(f"{code}-{harm}", severity, count, text, fix, kinds[harm], sorted(set(rows)))


_HARMS = {  # harm: severity of exact copies, of near ones, which images, where their copies are, what it means
    "conflict": ("error", "warning", "image", "with another label", "One of the labels is wrong."),
    "test": ("error", "warning", "test image", "among those trained on", "The test asks what was learned by heart."),
    "unlabelled-test": ("error", "warning", "test image", "among the unlabelled", "They must not be learned from."),
    "validation": ("warning", "warning", "validation image", "among those trained on", "They mislead every choice."),
    "within": ("warning", "info", "image", "in the same split", "They count more than others."),
}


def _harm(survey: Survey, group: list[int]) -> str:
    labels = set(survey.label[group].tolist()) - {UNLABELLED}
    splits = set(survey.split[group].tolist())
    if len(labels) > 1:
        return "conflict"
    if _TEST in splits and len(splits) > 1:
        learned = [row for row in group if survey.split[row] != _TEST and survey.label[row] != UNLABELLED]
        return "test" if learned else "unlabelled-test"
    return "validation" if _VALIDATION in splits and len(splits) > 1 else "within"


def _drop_exact(survey: Survey, group: list[int], harm: str) -> list[int]:
    """Return what to leave out of a group: all where labels conflict, else all but those that are asked about."""
    if harm == "conflict":
        return group
    splits = survey.split[group]
    keep = max(splits)  # test before validation before train: what is asked about stays as it is
    kept = [row for row, split in zip(group, splits, strict=True) if split == keep]
    labelled_first = sorted(kept, key=lambda row: survey.label[row] == UNLABELLED)
    stays = kept if SPLITS[keep] == "test" else labelled_first[:1]
    return [row for row in group if row not in stays]


def _drop_near(survey: Survey, group: list[int], harm: str) -> list[int]:
    """Return the rows to leave out of a near pair: the one that is trained on while the other is asked about."""
    if harm in ("conflict", "within"):
        return []
    keep = max(survey.split[row] for row in group)
    return [row for row in group if survey.split[row] != keep]

"""Findings about duplicates: within a split, across splits, with conflicting labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from potstill.data.checks.finding import Finding
from potstill.data.checks.survey import Survey
from potstill.data.formats.near_pairs import near_pairs
from potstill.data.manifest import SPLITS, UNLABELLED
from potstill.words import plural

_TRAIN, _VALIDATION, _TEST = range(3)


def exact(survey: Survey) -> Iterator[Finding]:
    """Yield findings about images with identical bytes."""
    digests = np.array([fact.sha256 for fact in survey.facts])
    groups = _groups(np.flatnonzero(survey.readable), digests)
    yield from _judged(survey, groups, "copies", "an exact copy", _drop_exact)


def near(survey: Survey) -> Iterator[Finding]:
    """Yield findings about near-duplicates: resized, saved again, slightly changed."""
    pairs, complete = near_pairs(survey.source, survey.facts)
    yield from _judged(survey, pairs, "near-copies", "a near-duplicate", _drop_near)
    if not complete:
        text = "A very large number of images are similar, so the search for near-duplicates was stopped early."
        yield Finding("near-copies-cut-short", "info", 1, text, "All exact copies were found.")


def _groups(rows: np.ndarray, digests: np.ndarray) -> list[list[int]]:
    """Return groups of two or more rows with the same content, in the order of their first row."""
    order = rows[np.argsort(digests[rows], kind="stable")]
    parts = np.split(order, np.flatnonzero(digests[order][1:] != digests[order][:-1]) + 1)
    return sorted(sorted(part.tolist()) for part in parts if len(part) > 1)


def _judged(
    survey: Survey,
    groups: Sequence[list[int]],
    code: str,
    alike: str,
    drop: Callable[[Survey, list[int], str], list[int]],
) -> Iterator[Finding]:
    """Yield a finding for each kind of harm that groups of duplicates do; a group counts for its worst kind only."""
    kinds: dict[str, list[list[int]]] = {}
    for group in groups:
        kinds.setdefault(_harm(survey, group), []).append(group)
    for harm, (exactly, nearly, what, where, advice) in _HARMS.items():
        if harm in kinds:
            rows = [row for group in kinds[harm] for row in drop(survey, group, harm)]
            count = len(kinds[harm]) if code == "copies" else _images(survey, kinds[harm], harm)
            text = f"{plural(count, f'{what} has', f'{what}s have')} {alike} {where}."
            advice = advice if code == "copies" else "Inspect them with --html FILE."
            fix = f"{advice} Or {survey.leaving_out}" if rows else advice
            severity = exactly if code == "copies" else nearly
            yield Finding(f"{code}-{harm}", severity, count, text, fix, kinds[harm], sorted(set(rows)))


_HARMS = {  # harm: severity of exact copies, of near-duplicates, which images, where their copies are, consequence
    "conflict": ("error", "warning", "image", "with another label", "One of the labels is wrong."),
    "test": (
        *("error", "warning", "test image", "in the training data"),
        "Test accuracy will be inflated by memorised images.",
    ),
    "unlabelled-test": (
        *("error", "warning", "test image", "in the unlabelled data"),
        "Training on them leaks test images.",
    ),
    "validation": (
        *("warning", "warning", "validation image", "in the training data"),
        "Model selection will be biased by memorised images.",
    ),
    "within": ("warning", "info", "image", "in the same split", "They get a higher weight than other images."),
}


def _images(survey: Survey, pairs: Sequence[list[int]], harm: str) -> int:
    """Return how many images of the split that is harmed are in pairs, each counted once."""
    rows = np.unique(np.concatenate([np.array(pair) for pair in pairs]))
    split = {"test": _TEST, "unlabelled-test": _TEST, "validation": _VALIDATION}.get(harm)
    return int((survey.split[rows] == split).sum()) if split else len(rows)


def _harm(survey: Survey, group: list[int]) -> str:
    labels = set(survey.label[group].tolist()) - {UNLABELLED}
    splits = set(survey.split[group].tolist())
    if len(labels) > 1:
        return "conflict"
    if _TEST in splits and len(splits) > 1:
        trained = [row for row in group if survey.split[row] != _TEST and survey.label[row] != UNLABELLED]
        return "test" if trained else "unlabelled-test"
    return "validation" if _VALIDATION in splits and len(splits) > 1 else "within"


def _drop_exact(survey: Survey, group: list[int], harm: str) -> list[int]:
    """Return the rows to leave out of a group: all if labels conflict, else all but those of the evaluation split."""
    if harm == "conflict":
        return group
    splits = survey.split[group]
    keep = max(splits)  # test before validation before train: evaluation splits stay unchanged
    kept = [row for row, split in zip(group, splits, strict=True) if split == keep]
    labelled_first = sorted(kept, key=lambda row: survey.label[row] == UNLABELLED)
    stays = kept if SPLITS[keep] == "test" else labelled_first[:1]
    return [row for row in group if row not in stays]


def _drop_near(survey: Survey, group: list[int], harm: str) -> list[int]:
    """Return the rows to leave out of a near-duplicate pair: the training image whose pair is in another split."""
    if harm in ("conflict", "within"):
        return []
    keep = max(survey.split[row] for row in group)
    return [row for row in group if survey.split[row] != keep]

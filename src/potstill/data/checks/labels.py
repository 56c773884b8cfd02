"""Findings about classes and the distribution of images over them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from potstill.data.checks.finding import Finding
from potstill.data.checks.survey import Survey
from potstill.data.formats.folders import split_of
from potstill.data.formats.rules import how_to_label, near_equal, quoted
from potstill.data.manifest import SPLITS
from potstill.words import plural

IMBALANCE = 5  # largest class / smallest class


def classes(survey: Survey) -> Iterator[Finding]:
    """Yield problems with the classes of a data set."""
    if not survey.classes and not survey.refusals:
        yield _unlabelled(survey)
    if not survey.classes:
        return
    total = np.sum([survey.counts(split) for split in SPLITS], axis=0)
    yield from _names(survey)
    yield from _sizes(survey, total)
    yield from _splits(survey)
    yield from _imbalance(survey, total)


def _unlabelled(survey: Survey) -> Finding:
    text = f"None of the {plural(len(survey), 'image')} has a label."
    advice = f"For training, {how_to_label(survey.root)} Without labels they can only be used with --unlabelled."
    return Finding("unlabelled", "warning", len(survey), text, advice)


def _names(survey: Survey) -> Iterator[Finding]:
    if len(survey.classes) == 1:
        text = f"There is only one class, '{survey.classes[0]}'; classification needs at least two."
        yield Finding("one-class", "error", 1, text, "Give the folder that holds one folder per class.")
    for names in near_equal(survey.classes):
        text = f"The classes {quoted(names)} have nearly the same name."
        yield Finding("near-equal-classes", "warning", len(names), text, "If they are one, merge them.", names=names)
    splits = [name for name in survey.classes if split_of(name)]
    if splits:
        text = f"{quoted(splits)} are used as classes but have names of splits."
        advice = "If they are splits, put that into a column 'split', or into folders above the class folders."
        yield Finding("splits-as-classes", "warning", len(splits), text, advice, names=splits)


KEPT = " It is kept by distill --allow-empty, or data.allow_empty: true in a recipe."


def _sizes(survey: Survey, total: np.ndarray) -> Iterator[Finding]:
    for size, code, severity, what in (
        (0, "empty-class", "error", "no usable image"),
        (1, "one-image-class", "warning", "only one image, so it cannot be in both train and test"),
    ):
        names = [survey.classes[k] for k in np.flatnonzero(total == size)]
        if names:
            text = f"{plural(len(names), 'class has', 'classes have')} {what}: {quoted(names)}."
            advice = "Add images, or remove the class." + (KEPT if size == 0 else "")
            yield Finding(code, severity, len(names), text, advice, names=names)


def _splits(survey: Survey) -> Iterator[Finding]:
    trained = survey.counts("train")
    if not trained.any():
        return
    for split in SPLITS[1:]:
        here = survey.counts(split)
        if not here.any():
            continue
        lost = [survey.classes[k] for k in np.flatnonzero((here > 0) & (trained == 0))]
        if lost:
            text = f"The {split} split has images of {quoted(lost)}, but the train split has none."
            advice = "Add some to train, or check that both splits use the same class names."
            yield Finding("class-not-in-train", "error", len(lost), text, advice, names=lost)
        unmeasured = [survey.classes[k] for k in np.flatnonzero((here == 0) & (trained > 0))]
        if unmeasured:
            text = f"The {split} split has no images of {quoted(unmeasured)}, so their recall cannot be measured."
            yield Finding(f"class-not-in-{split}", "warning", len(unmeasured), text, "Add some.", names=unmeasured)


def _imbalance(survey: Survey, total: np.ndarray) -> Iterator[Finding]:
    filled = np.where(total > 0, total, total.max(initial=0))
    if not filled.any() or filled.max() < IMBALANCE * filled.min():
        return
    most, least = int(np.argmax(total)), int(np.argmin(filled))
    text = (
        f"The classes are imbalanced: '{survey.classes[most]}' has {plural(total[most], 'image')} and "
        f"'{survey.classes[least]}' has {plural(total[least], 'image')}."
    )
    advice = (
        "Compare balanced accuracy and lowest recall, not only accuracy. To train and select for all classes alike: "
        "--balance logit-adjust --select balanced (in a recipe train.balance and train.select)."
    )
    yield Finding("imbalance", "warning", 1, text, advice, names=[survey.classes[most], survey.classes[least]])

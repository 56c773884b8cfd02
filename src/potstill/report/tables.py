"""The report's tables as rows of text: models, soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill import words
from potstill.evaluation.statistics import mean_interval, proportion_interval
from potstill.report.advice import mean_accuracy
from potstill.words import plural

TITLES = {
    "teacher": ("Teacher", "the network that is distilled"),
    "control": ("Control", "the student, trained without a teacher"),
    "student": ("Student", "the same network, distilled from the teacher"),
    "student_int8": ("Student, int8", "the student, quantized to 8 bits"),
}
ALL_CLASSES = 10  # with more classes than this an example shows only the most probable
MOST_PROBABLE = 5


@dataclass(frozen=True)
class ModelRow:
    """A model of the run: its figures, and the text of its table cells."""

    key: str
    title: str
    role: str
    facts: dict[str, Any]
    mean: float | None
    interval: tuple[float, float] | None
    cells: dict[str, tuple[str, str]]  # column: (text, small print)


COLUMNS = {
    "accuracy": "Test accuracy",
    "balanced": "Balanced accuracy",
    "worst": "Lowest recall",
    "interval": "95 % interval",
    "parameters": "Parameters",
    "bytes": "File size",
    "share": "Size vs teacher",
    "latency": "Latency per image",
}


def model_rows(models: dict[str, Any], images: int, digits: int, *, whole: float | None = None) -> list[ModelRow]:
    """Return one row per measured model.

    images: number of test images. digits: after the decimal point. whole: bytes of the teacher's file.
    """
    known = [key for key in TITLES if key in models]
    return [_model_row(key, models[key], images, digits, whole) for key in known]


def _model_row(key: str, facts: dict[str, Any], images: int, digits: int, whole: float | None) -> ModelRow:
    title, role = TITLES[key]
    mean, seeds = mean_accuracy(facts), _seeds(facts)
    interval = None
    cells = {}
    if mean is not None:
        interval = _interval(mean, seeds, images)
        each = ", ".join(f"{one:.{digits}f}" for one in seeds) if len(seeds) > 1 else ""
        cells["accuracy"] = (words.percent(mean, digits), each)
        basis = words.plural(len(seeds), "seed") if len(seeds) > 1 else words.plural(images, "image")
        cells["interval"] = (f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}", f"over {basis}")
    for column, name in (("balanced", "balanced_accuracy"), ("worst", "worst_recall")):
        if facts.get(name) is not None:
            cells[column] = (words.percent(facts[name], digits), "")
    if facts.get("parameters"):
        cells["parameters"] = (words.count(facts["parameters"]), "")
    if facts.get("bytes"):
        cells["bytes"] = (words.size(facts["bytes"]), "")
        if whole and key != "teacher":
            cells["share"] = (words.ratio(facts["bytes"], whole), "")
    if facts.get("latency_ms"):
        cells["latency"] = (words.milliseconds(facts["latency_ms"]), "")
    return ModelRow(key, title, role, facts, mean, interval, cells)


def _seeds(facts: dict[str, Any]) -> list[float]:
    accuracy = facts.get("accuracy")
    return facts.get("test_accuracy") or ([] if accuracy is None else [accuracy])


def _interval(mean: float, seeds: Sequence[float], images: int) -> tuple[float, float]:
    """Return the interval over seeds if there are several, over images otherwise, inside 0..100."""
    low, high = mean_interval(seeds) or proportion_interval(round(mean / 100 * images), images)
    return max(low, 0.0), min(high, 100.0)


def columns(rows: Sequence[ModelRow]) -> dict[str, str]:
    """Return the columns for which any row has a value, with their headings."""
    return {key: title for key, title in COLUMNS.items() if any(key in row.cells for row in rows)}


@dataclass(frozen=True)
class Bar:
    """Probabilities (0..1) of one class by teacher and student, at temperature 1 and at the temperature of the run."""

    name: str
    is_label: bool
    sharp: tuple[float, float] | None
    soft: tuple[float, float]


def bars(example: dict[str, Any], classes: Sequence[str]) -> list[Bar]:
    """Return the bars of an image: all classes if they are few, otherwise the most probable, the label and the rest."""
    probabilities = {key: np.asarray(example[key]) for key in ("teacher", "student", "teacher_soft", "student_soft")}
    shown = _shown(probabilities, example["label"], len(classes))
    rows = [_bar(probabilities, [one], classes[one], one == example["label"]) for one in shown]
    rest = [one for one in range(len(classes)) if one not in shown]
    return rows + ([_bar(probabilities, rest, plural(len(rest), "other"), False)] if rest else [])


def _shown(probabilities: dict[str, np.ndarray], label: int, classes: int) -> list[int]:
    if classes <= ALL_CLASSES:
        return list(range(classes))
    order = np.argsort(-probabilities["teacher_soft"], kind="stable")[:MOST_PROBABLE].tolist()
    return list(dict.fromkeys([*order, int(probabilities["student"].argmax()), label]))


def _bar(probabilities: dict[str, np.ndarray], of: list[int], name: str, is_label: bool) -> Bar:
    value = {key: float(values[of].sum()) for key, values in probabilities.items()}
    return Bar(name, is_label, (value["teacher"], value["student"]), (value["teacher_soft"], value["student_soft"]))

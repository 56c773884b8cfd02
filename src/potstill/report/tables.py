"""The report's tables, as rows of words: models, exported files, soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.evaluation.statistics import mean_interval, proportion_interval
from potstill.report import words
from potstill.report.advice import mean_accuracy

TITLES = {
    "teacher": ("Teacher", "the network that teaches"),
    "control": ("Control", "the student, trained without a teacher"),
    "student": ("Student", "the same network, taught by the teacher"),
    "student_int8": ("Student, 8 bit", "the student, its numbers cut to 8 bits"),
}
ALL_CLASSES = 10  # with more classes than this an example shows only the likeliest
LIKELIEST = 5


@dataclass(frozen=True)
class ModelRow:
    """A model of the run: its figures, and the words that stand in the table."""

    key: str
    title: str
    role: str
    facts: dict[str, Any]
    mean: float | None
    interval: tuple[float, float] | None
    cells: dict[str, tuple[str, str]]  # column: (words, small print)


COLUMNS = {
    "accuracy": "Test accuracy",
    "interval": "95 % interval",
    "parameters": "Parameters",
    "bytes": "File",
    "share": "Beside the teacher",
    "latency": "Time an image",
}


def model_rows(models: dict[str, Any], images: int, digits: int, *, whole: float | None = None) -> list[ModelRow]:
    """Return a row for each model that was measured.

    images: of the test split. digits: after the decimal point. whole: bytes of the teacher's file.
    """
    known = [key for key in TITLES if key in models]
    return [_model_row(key, models[key], images, digits, whole) for key in known]


def _model_row(key: str, facts: dict[str, Any], images: int, digits: int, whole: float | None) -> ModelRow:
    title, role = TITLES[key]
    mean, seeds = mean_accuracy(facts), _seeds(facts)
    interval = None if mean is None else _interval(mean, seeds, images)
    cells = {}
    if mean is not None:
        each = ", ".join(f"{one:.{digits}f}" for one in seeds) if len(seeds) > 1 else ""
        cells["accuracy"] = (words.percent(mean, digits), each)
        basis = words.plural(len(seeds), "seed") if len(seeds) > 1 else words.plural(images, "image")
        cells["interval"] = (f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}", f"over {basis}")
    if facts.get("parameters"):
        cells["parameters"] = (words.count(facts["parameters"]), "")
    if facts.get("bytes"):
        cells["bytes"] = (words.size(facts["bytes"]), "")
        if whole and key != "teacher":
            cells["share"] = (words.share_of(facts["bytes"], whole), "")
    if facts.get("latency_ms"):
        cells["latency"] = (words.milliseconds(facts["latency_ms"]), "")
    return ModelRow(key, title, role, facts, mean, interval, cells)


def _seeds(facts: dict[str, Any]) -> list[float]:
    return facts.get("test_accuracy") or [facts.get("accuracy")]


def _interval(mean: float, seeds: Sequence[float], images: int) -> tuple[float, float]:
    """Return the interval over seeds where there are several, over images otherwise, inside 0..100."""
    low, high = mean_interval(seeds) or proportion_interval(round(mean / 100 * images), images)
    return max(low, 0.0), min(high, 100.0)


def columns(rows: Sequence[ModelRow]) -> dict[str, str]:
    """Return the columns in which any row has something to say, with their headings."""
    return {key: title for key, title in COLUMNS.items() if any(key in row.cells for row in rows)}


@dataclass(frozen=True)
class Bar:
    """What teacher and student think of one class, 0..1, at temperature 1 and at the chosen one."""

    name: str
    is_label: bool
    sharp: tuple[float, float] | None
    soft: tuple[float, float]


def bars(example: dict[str, Any], classes: Sequence[str]) -> list[Bar]:
    """Return the classes to show for an image: all of few, otherwise the likeliest, the true one and the rest."""
    said = {key: np.asarray(example[key]) for key in ("teacher", "student", "teacher_soft", "student_soft")}
    shown = _shown(said, example["label"], len(classes))
    rows = [_bar(said, [one], classes[one], one == example["label"]) for one in shown]
    rest = [one for one in range(len(classes)) if one not in shown]
    return rows + ([_bar(said, rest, f"{len(rest)} others", False)] if rest else [])


def _shown(said: dict[str, np.ndarray], label: int, classes: int) -> list[int]:
    if classes <= ALL_CLASSES:
        return list(range(classes))
    order = np.argsort(-said["teacher_soft"], kind="stable")[:LIKELIEST].tolist()
    return list(dict.fromkeys([*order, int(said["student"].argmax()), label]))


def _bar(said: dict[str, np.ndarray], of: list[int], name: str, is_label: bool) -> Bar:
    value = {key: float(given[of].sum()) for key, given in said.items()}
    return Bar(name, is_label, (value["teacher"], value["student"]), (value["teacher_soft"], value["student_soft"]))

"""The report's tables as rows of text: models, soft labels, forests of intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill import words
from potstill.evaluation.statistics import percent_interval, proportion_interval
from potstill.report.advice import mean_accuracy
from potstill.words import plural

TITLES = {
    "teacher": ("Teacher", "the network that is distilled"),
    "control": ("Control", "the student, trained without a teacher"),
    "student": ("Student", "the same network, distilled from the teacher"),
    "student_int8": ("Student, int8", "the student, quantized to 8 bits"),
    "shipped": ("Shipped", "the file that is shipped"),
    "probe": ("Probe", "a linear layer on the frozen network"),
    "tuned": ("Fine-tuned", "starting from the probe"),
    "original": ("Original", "the model that was given"),
    "pruned": ("Pruned", "with fewer weights, fine-tuned"),
    "packed": ("Packed", "weights packed in their bits"),
    "onnx": ("ONNX", "integer weights, for runtimes"),
    "simulated": ("Simulated", "rounded in the given formats"),
    "network": ("Network", "before export"),
}
COLOURS = {"original": "teacher", "network": "teacher", "probe": "control", "packed": "control", "simulated": "student"}
"""The colour of a role that has none of its own (keys of charts.COLOURS); else that of the student."""
OWN_COLOURS = ("teacher", "control", "student", "student_int8")
ALL_CLASSES = 10  # with more classes than this an example shows only the most probable
MOST_PROBABLE = 5


@dataclass(frozen=True)
class ModelRow:
    """A model of the stage: its figures, and the text of its table cells."""

    key: str
    title: str
    role: str
    facts: Mapping[str, Any]
    mean: float | None
    interval: tuple[float, float] | None
    shipped: bool
    cells: dict[str, tuple[str, str]]  # column: (text, small print)

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.facts.get("name") or ""

    @property
    def colour(self) -> str:
        """The key of its colour in charts and tables."""
        return self.key if self.key in OWN_COLOURS else COLOURS.get(self.key, "student")


COLUMNS = {
    "accuracy": "Test accuracy",
    "interval": "95 % interval",
    "lost": "Lost, points",
    "balanced": "Balanced accuracy",
    "worst": "Lowest recall",
    "validation": "Validation accuracy",
    "agreement": "Agreement",
    "parameters": "Parameters",
    "bytes": "File size",
    "share": "Size vs teacher",
    "latency": "Latency per image",
}


def model_rows(
    models: Mapping[str, Any],
    images: int,
    digits: int,
    *,
    whole: float | None = None,
    titles: Mapping[str, tuple[str, str]] = TITLES,
    ship: Mapping[str, Any] | None = None,
) -> list[ModelRow]:
    """Return one row per measured model.

    images: number of test images. digits: after the decimal point. whole: bytes of the teacher's file. titles: by role,
    title and description. ship: of the summary, to mark the shipped model.
    """
    known = [key for key in titles if key in models] + [key for key in models if key not in titles]
    return [_model_row(key, models[key], images, digits, whole, titles.get(key, (key, "")), ship) for key in known]


def _model_row(
    key: str,
    facts: Mapping[str, Any],
    images: int,
    digits: int,
    whole: float | None,
    title: tuple[str, str],
    ship: Mapping[str, Any] | None,
) -> ModelRow:
    mean, seeds = mean_accuracy(facts), _seeds(facts)
    shipped = ship is not None and ship["role"] == key
    interval = None
    cells = {}
    if mean is not None:
        interval = _interval(mean, seeds, images)
        each = ", ".join(f"{one:.{digits}f}" for one in seeds) if len(seeds) > 1 else ""
        cells["accuracy"] = (words.percent(mean, digits), each)
        basis = words.plural(len(seeds), "seed") if len(seeds) > 1 else words.plural(images, "image")
        cells["interval"] = (f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}", f"over {basis}")
    for column, name in (("balanced", "balanced_accuracy"), ("worst", "worst_recall"), ("agreement", "agreement")):
        if facts.get(name) is not None:
            cells[column] = (words.percent(facts[name], digits), "")
    if facts.get("lost") is not None and facts.get("file"):
        cells["lost"] = (words.signed(facts["lost"], 2), "")
    cells |= _costs(key, facts, whole)
    suffix = " (shipped)" if shipped else ""
    return ModelRow(key, f"{title[0]}{suffix}", title[1], facts, mean, interval, shipped, cells)


def _costs(key: str, facts: Mapping[str, Any], whole: float | None) -> dict[str, tuple[str, str]]:
    cells = {}
    if facts.get("parameters"):
        cells["parameters"] = (words.count(facts["parameters"]), "")
    if facts.get("bytes"):
        cells["bytes"] = (words.size(facts["bytes"]), "")
        if whole and key != "teacher":
            cells["share"] = (words.ratio(facts["bytes"], whole), "")
    if latency(facts):
        cells["latency"] = (words.milliseconds(latency(facts) or 0), "")
    return cells


def latency(facts: Mapping[str, Any]) -> float | None:
    """Return the milliseconds of one image on one thread; None if they were not measured."""
    if facts.get("latency_ms"):
        return facts["latency_ms"]
    timed = facts.get("latency") or []
    return next((one["median_ms"] for one in timed if (one["batch"], one["threads"]) == (1, 1)), None)


def _seeds(facts: Mapping[str, Any]) -> list[float]:
    accuracy = facts.get("accuracy")
    return facts.get("test_accuracy") or ([] if accuracy is None else [accuracy])


def _interval(mean: float, seeds: Sequence[float], images: int) -> tuple[float, float]:
    """Return the interval over seeds if there are several, over images otherwise."""
    return percent_interval(seeds) or proportion_interval(round(mean / 100 * images), images)


def columns(rows: Sequence[ModelRow]) -> dict[str, str]:
    """Return the columns for which any row has a value, with their headings."""
    return {key: title for key, title in COLUMNS.items() if any(key in row.cells for row in rows)}


def forest(rows: Sequence[Mapping[str, Any]], digits: int) -> dict[str, Any]:
    """Return differences with their intervals on one scale with zero, in percent of its width.

    rows: name, difference and interval (points), tone and label of each.
    """
    ends = [0.0, *(bound for row in rows for bound in row["interval"])]
    width = (max(ends) - min(ends)) or 1.0
    left, width = min(ends) - 0.08 * width, 1.16 * width

    def at(value: float) -> float:
        return round(100 * (value - left) / width, 2)

    shown = [
        {
            **row,
            "low": at(row["interval"][0]),
            "high": at(row["interval"][1]),
            "dot": at(row["difference"]),
            "text": words.signed(row["difference"], digits),
        }
        for row in rows
    ]
    return {
        "rows": shown,
        "zero": at(0.0),
        "ticks": [(at(value), words.signed(value, digits)) for value in _ticks(ends)],
    }


def _ticks(ends: Sequence[float]) -> list[float]:
    """Return up to five round values between the lowest and the highest of `ends`."""
    width = max(ends) - min(ends)
    if not width:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(width))
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0, 5.0) if width / (factor * power) <= 4)
    first, last = math.ceil(min(ends) / step - 1e-9), math.floor(max(ends) / step + 1e-9)
    return [round(number * step, 6) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Bar:
    """Probabilities (0..1) of one class by teacher and student, a pair for each temperature."""

    name: str
    is_label: bool
    pairs: tuple[tuple[float, float], ...]


def bars(example: Mapping[str, Any], classes: Sequence[str]) -> list[Bar]:
    """Return the bars of an image: all classes if they are few, otherwise the most probable, the label and the rest."""
    teacher, student = np.asarray(example["teacher"]), np.asarray(example["student"])  # [temperatures, K]
    shown = _shown(teacher, student, example["label"])
    rest = [one for one in range(len(classes)) if one not in shown]

    def bar(of: list[int], name: str, is_label: bool) -> Bar:
        values = zip(teacher[:, of].sum(1).tolist(), student[:, of].sum(1).tolist(), strict=True)
        return Bar(name, is_label, tuple(values))

    rows = [bar([one], classes[one], one == example["label"]) for one in shown]
    return rows + ([bar(rest, plural(len(rest), "other"), False)] if rest else [])


def _shown(teacher: np.ndarray, student: np.ndarray, label: int) -> list[int]:
    classes = teacher.shape[1]
    if classes <= ALL_CLASSES:
        return list(range(classes))
    order = np.argsort(-teacher[-1], kind="stable")[:MOST_PROBABLE].tolist()
    return list(dict.fromkeys([*order, int(student[0].argmax()), label]))

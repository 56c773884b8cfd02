"""The charts of a run: accuracy against size and latency, and the curves of every loss term."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill import words
from potstill.report import charts
from potstill.report.read import Curves, Row
from potstill.report.tables import TITLES, ModelRow, latency

LOG_FROM = 5.0  # costs are drawn on a logarithmic axis if the largest is this many times the smallest
TERMS = {
    "loss": "weighted sum of the terms, which training minimises; control and student have different terms",
    "cross_entropy": "cross-entropy with the labels",
    "kd": "KL divergence from the teacher's softened probabilities",
}


@dataclass(frozen=True)
class Picture:
    """A chart: its title, a line of explanation, and the SVG."""

    title: str
    text: str
    svg: str


def tradeoffs(rows: Sequence[ModelRow]) -> list[Picture]:
    """Return accuracy against file size and against latency, if at least two models have the figures."""
    wanted: list[tuple[Callable[[ModelRow], float | None], str, str, Callable[[float], str]]] = [
        (lambda row: row.facts.get("bytes"), "size", "file size", words.size),
        (lambda row: latency(row.facts), "latency", "latency per image", words.milliseconds),
    ]
    pictures = [_tradeoff(rows, *one) for one in wanted]
    return [picture for picture in pictures if picture]


def _tradeoff(
    rows: Sequence[ModelRow],
    cost: Callable[[ModelRow], float | None],
    short: str,
    axis: str,
    tick: Callable[[float], str],
) -> Picture | None:
    points = [
        charts.Point(row.colour, row.title, value, row.mean, row.interval)
        for row in rows
        if (value := cost(row)) and row.mean is not None and row.interval is not None
    ]
    if len(points) < 2:
        return None
    costs = [p.cost for p in points]
    values = "; ".join(f"{p.label} {words.percent(p.accuracy)} at {tick(p.cost)}" for p in points)
    log = max(costs) / min(costs) > LOG_FROM
    svg = charts.tradeoff(
        points, axis=axis, tick=tick, name=f"front-{short}", alt=f"Accuracy and {short}: {values}.", log=log
    )
    scale = "The horizontal axis is logarithmic." if log else ""
    return Picture(f"Accuracy vs {short}", f"Upper left is better. {scale}".strip(), svg)


def curves(models: Curves, *, name: str) -> list[Picture]:
    """Return a chart for validation accuracy and one for each loss term, each with one line per model."""
    pictures = []
    lines = _lines(models, lambda row: row.get("validation", {}).get("accuracy"))
    if lines:
        svg = charts.curve(
            lines, name=f"{name}-accuracy", alt=_alt("Validation accuracy in percent", lines), from_zero=False
        )
        pictures.append(Picture("Validation accuracy, %", "after each epoch; higher is better", svg))
    lines = _lines(models, lambda row: row.get("learning_rate"))
    if lines:
        svg = charts.curve(lines, name=f"{name}-rate", alt=_alt("Learning rate", lines), from_zero=True)
        pictures.append(Picture("Learning rate", "after each epoch", svg))
    for term in terms(models):
        lines = _lines(models, lambda row, term=term: row["train"].get(term))
        svg = charts.curve(lines, name=f"{name}-{term}", alt=_alt(f"Training {term}", lines), from_zero=True)
        pictures.append(Picture(term, TERMS.get(term, "a loss term") + "; lower is better", svg))
    return pictures


def terms(models: Curves) -> list[str]:
    """Return the names of the loss terms in the order in which they appear, the total last."""
    rows = (row for seeds in models.values() for rows in seeds for row in rows)
    named = dict.fromkeys(term for row in rows for term in row["train"])
    return sorted(named, key=lambda term: term == "loss")


def _lines(models: Curves, value: Callable[[Row], float | None]) -> list[charts.Line]:
    lines = []
    for model, seeds in models.items():
        drawn = []
        for rows in seeds:
            pairs = [(row["epoch"], value(row)) for row in rows]
            pairs = [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]
            if pairs:
                drawn.append(tuple(zip(*pairs, strict=True)))
        if drawn:
            lines.append(charts.Line(model, TITLES[model][0], tuple(drawn)))
    return lines


def _alt(quantity: str, lines: Sequence[charts.Line]) -> str:
    ends = ", ".join(f"{line.label} ends at {charts.mean_curve(line)[1][-1]:.3g}" for line in lines)
    return f"{quantity} over epochs: {ends}."

"""The front of a search: accuracy against a cost, the teacher as a line, budgets as shaded areas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from potstill.report.charts import COLOURS, drawing, new_figure, svg_of


@dataclass(frozen=True)
class Spot:
    """A candidate: its cost, its validation accuracy in percent, and whether it lost, was a finalist, or was chosen."""

    label: str
    cost: float
    accuracy: float
    state: str  # "lost", "finalist" or "chosen"


SHAPES = {
    "lost": {"color": COLOURS["muted"], "markersize": 4, "alpha": 0.55},
    "finalist": {"color": COLOURS["control"], "markersize": 6},
    "chosen": {"color": COLOURS["student"], "markersize": 8},
}


STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Ticks within a decade, from few to many."""


def front(
    spots: Sequence[Spot],
    *,
    teacher: float | None,
    limit: float | None,
    goal: float | None,
    axis: str,
    tick: Callable[[float], str],
    name: str,
    alt: str,
) -> str:
    """Draw the candidates as SVG. teacher, goal: accuracies in percent; limit: of the cost; each may be absent."""
    with drawing(name):
        figure, axes = new_figure(axis)
        _scale(axes, spots, limit, tick)
        for spot in spots:
            axes.plot([spot.cost], [spot.accuracy], marker="o", linestyle="", zorder=3, **SHAPES[spot.state])
        _line(axes, teacher, "teacher", "teacher")
        _line(axes, goal, "target", "student_int8")
        chosen = next(spot for spot in spots if spot.state == "chosen")
        text = axes.annotate(chosen.label, (chosen.cost, chosen.accuracy), xytext=(0, -15), textcoords="offset points")
        text.set(color=COLOURS["student"], ha="center", annotation_clip=False)
        return svg_of(figure, alt)


def _scale(axes: Axes, spots: Sequence[Spot], limit: float | None, tick: Callable[[float], str]) -> None:
    costs, accuracies = [spot.cost for spot in spots], [spot.accuracy for spot in spots]
    low, high = min(costs) / 1.8, max([*costs, limit or 0]) * 1.8
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    if limit is not None:
        axes.axvspan(limit, high, color=COLOURS["muted"], alpha=0.14, linewidth=0)
    margin = 0.12 * (max(accuracies) - min(accuracies)) or 2.0
    axes.set_ylim(max(min(accuracies) - 1.6 * margin, -1), 101)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def ticks(low: float, high: float) -> list[float]:
    """Return values for a logarithmic axis from `low` to `high`: at least three where it spans a factor of 3.2.

    They are apart enough for labels of six characters beside each other.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in STEPS:
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 3:
            break
    return found


def _line(axes: Axes, height: float | None, label: str, colour: str) -> None:
    if height is None:
        return
    axes.axhline(height, color=COLOURS[colour], linewidth=1.1, linestyle="--")
    text = axes.annotate(label, (axes.get_xlim()[0], height), xytext=(3, 3), textcoords="offset points")
    text.set(color=COLOURS[colour])

"""Plots of experiments as SVG files that stand by themselves: a line for each name, its mean over seeds, each seed."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from potstill.report.charts import drawing

COLOURS = ("#00609f", "#a85a00", "#007a5e", "#8a3a8f", "#5f6b74", "#b3261e", "#3a6b00", "#005f6b")

APART = 0.09  # of the axis, between two labels


@dataclass(frozen=True)
class Curve:
    """A line: x, and at each x the values of the seeds."""

    label: str
    x: Sequence[float]
    y: Sequence[Sequence[float]]


def draw(plot: Mapping[str, Any], curves: Sequence[Curve]) -> str:
    """Return a plot as the text of an SVG file on white."""
    with drawing(plot["title"]):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for curve, colour in zip(curves, COLOURS * len(curves), strict=False):
            mean = [sum(values) / len(values) for values in curve.y]
            style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(curve.x) <= 24 else {}
            axes.plot(curve.x, mean, color=colour, linewidth=1.7, label=curve.label, **style)
            if len(curve.y[0]) > 1:
                low, high = [min(values) for values in curve.y], [max(values) for values in curve.y]
                axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(plot["title"], fontsize=10, loc="left")
        axes.set_xlabel(plot["x_label"] or plot["x"])
        axes.set_ylabel(plot["y_label"] or plot["y"])
        _scale(axes, plot, curves)
        if any(curve.label for curve in curves):
            axes.legend(fontsize=8, frameon=False, title=plot["lines"] or None, title_fontsize=8)
        file = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", facecolor="white", metadata=no_metadata)
        return file.getvalue()


def apart(values: Sequence[float]) -> list[float]:
    """Return those of the rising values whose labels do not touch on a logarithmic axis."""
    kept = list(values[:1])
    room = APART * math.log(values[-1] / values[0])
    for value in values[1:]:
        if math.log(value / kept[-1]) >= room:
            kept.append(value)
    return kept


def _scale(axes: Any, plot: Mapping[str, Any], curves: Sequence[Curve]) -> None:
    if all(float(x).is_integer() for curve in curves for x in curve.x):  # epochs, layers, bits
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "x" in plot["log"]:
        axes.set_xscale("log")
        axes.set_xticks(apart(sorted({x for curve in curves for x in curve.x})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}")
        )
    if "y" in plot["log"]:
        axes.set_yscale("log")

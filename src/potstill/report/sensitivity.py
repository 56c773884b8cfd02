"""Pruning sensitivity as one chart: one row per layer, one dot for each fraction of channels kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from potstill.report.charts import COLOURS

ROW = 0.22  # inches per layer
SHADES = ("student", "student_int8", "teacher")


def write_sensitivity(rises: Mapping[str, Mapping[float, float]], file: Path) -> None:
    """Write an SVG of the increase of the loss when a single layer keeps only a fraction of its channels.

    rises: layer -> fraction kept (0..1) -> increase of the validation loss in nats; layers from top to bottom.
    """
    layers = list(rises)
    figure = Figure(figsize=(6, 1 + ROW * len(layers)), layout="constrained")
    axes = figure.subplots()
    for share, shade in zip(sorted(rises[layers[0]]), SHADES, strict=False):
        heights = [rises[layer][share] for layer in layers]
        axes.plot(heights, range(len(layers)), "o", color=COLOURS[shade], label=f"{share:.0%} of channels kept")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("increase of validation loss (nats)")
    axes.grid(axis="x", color=COLOURS["rule"])
    axes.legend(fontsize=8)
    figure.savefig(file, format="svg")

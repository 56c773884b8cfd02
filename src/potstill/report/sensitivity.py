"""Which layers can be narrowed and which cannot, as one picture: a row a layer, a dot for each share that was kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from potstill.report.charts import COLOURS

ROW = 0.22  # inches of a layer
SHADES = ("student", "student_int8", "teacher")


def write_sensitivity(rises: Mapping[str, Mapping[float, float]], file: Path) -> None:
    """Write the rise of the loss when one layer alone keeps a share of its channels, as SVG; layers from the top."""
    layers = list(rises)
    figure = Figure(figsize=(6, 1 + ROW * len(layers)), layout="constrained")
    axes = figure.subplots()
    for share, shade in zip(sorted(rises[layers[0]]), SHADES, strict=False):
        heights = [rises[layer][share] for layer in layers]
        axes.plot(heights, range(len(layers)), "o", color=COLOURS[shade], label=f"{share:.0%} of its channels kept")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("rise of the loss on validation images (nats)")
    axes.grid(axis="x", color=COLOURS["rule"])
    axes.legend(fontsize=8)
    figure.savefig(file, format="svg")

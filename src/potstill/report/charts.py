"""The report's charts: small SVG images, one quantity each, with labels next to the data instead of a legend.

Every chart is a small SVG of its own, so that the page can lay out two columns on a wide screen and one on a phone
without shrinking the text. Colours are CSS variables: the page sets them for light mode, dark mode and print.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from potstill.report.layout import Box, place, spread

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# CSS variables and the colour that represents each of them while matplotlib draws; they only have to be distinct.
COLOURS = {
    "ink": "#1f2a31",
    "muted": "#66717a",
    "rule": "#dadfdd",
    "teacher": "#a85a00",
    "control": "#5f6b74",
    "student": "#00609f",
    "student_int8": "#007a5e",
}
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable, in the page's font
    "font.size": 9,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
WIDTH, HEIGHT = 4.1, 2.7  # inches of 72 points
LEAST = 2.0  # percent: the smallest range of an axis of accuracies
ROW = 0.2  # inches for each layer of a sensitivity chart
SHADES = ("student", "student_int8", "teacher")
LETTER = 0.58  # mean width of a letter relative to its height, for placing labels


@dataclass(frozen=True)
class Line:
    """A model's curve: x and y of each seed."""

    model: str
    label: str
    seeds: tuple[tuple[Sequence[float], Sequence[float]], ...]


@dataclass(frozen=True)
class Point:
    """A model in a chart of accuracy against cost, with the interval of its accuracy."""

    model: str
    label: str
    cost: float
    accuracy: float
    interval: tuple[float, float]


def curve(lines: Sequence[Line], *, name: str, alt: str, from_zero: bool) -> str:
    """Draw curves over epochs as SVG: a bold line for the mean over seeds, a thin one for each seed.

    name: makes the element ids of this chart unique. alt: text alternative for screen readers. from_zero: start the y
    axis at 0 (losses); otherwise near the smallest value (accuracies in percent). First epochs that are cut off are
    marked as such.
    """
    with drawing(name):
        figure, axes = new_figure("epoch")
        ends = [_draw_line(axes, line) for line in lines]
        bottom, top = _limits(lines, from_zero=from_zero)
        axes.set_ylim(bottom, top)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # without an offset
        _mark_cut(axes, lines, bottom, top)
        gap = 0.075 * (top - bottom)
        last = max(x for x, _ in ends)
        heights = spread([min(max(y, bottom), top) for _, y in ends], gap=gap, low=bottom, high=top)
        for line, height, (x, y) in zip(lines, heights, ends, strict=True):
            if x < last:  # connect the curve of a model that trained for fewer epochs to its label
                axes.plot([x, last], [y, y], color=COLOURS[line.model], linewidth=0.7, linestyle=":")
            text = axes.annotate(line.label, (last, height), xytext=(5, 0), textcoords="offset points")
            text.set(color=COLOURS[line.model], va="center", annotation_clip=False)
        return svg_of(figure, alt)


def _draw_line(axes: Axes, line: Line) -> tuple[float, float]:
    """Draw one model's seeds and their mean; return the end of the mean's line."""
    colour = COLOURS[line.model]
    if len(line.seeds) > 1:
        for x, y in line.seeds:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.35)
    x, y = mean_curve(line)
    axes.plot(x, y, color=colour, linewidth=1.8, marker="o" if len(x) == 1 else "", markersize=4)
    return x[-1], y[-1]


def mean_curve(line: Line) -> tuple[list[float], list[float]]:
    """Return x and the mean of y over seeds, up to the last x that all seeds have."""
    length = min(len(x) for x, _ in line.seeds)
    columns = zip(*(y[:length] for _, y in line.seeds), strict=True)
    return list(line.seeds[0][0][:length]), [sum(column) / len(column) for column in columns]


def _limits(lines: Sequence[Line], *, from_zero: bool) -> tuple[float, float]:
    """Return y limits that resolve the end of training; the first epochs may be cut off."""
    means = [mean_curve(line)[1] for line in lines]
    if from_zero and min(min(y) for y in means) >= 0:
        highest, last = max(max(y) for y in means), max(y[-1] for y in means)
        return 0.0, 1.05 * min(highest, 8 * last) or 1.0
    settled = [value for y in means for value in y[len(y) // 5 :]]
    low, high = min(settled), max(settled)
    margin = max(0.08 * (high - low), 0.5 * (LEAST - (high - low)))  # equal values are not drawn apart
    return low - margin, high + margin


def _mark_cut(axes: Axes, lines: Sequence[Line], bottom: float, top: float) -> None:
    """Say so where first epochs lie outside the limits."""
    values = [value for line in lines for value in mean_curve(line)[1]]
    below, above = min(values) < bottom, max(values) > top
    for cut, height, where in ((below, 0.02, "bottom"), (above, 0.98, "top")):
        if cut:
            arrow = "\N{DOWNWARDS ARROW}" if where == "bottom" else "\N{UPWARDS ARROW}"
            axes.text(
                0.02, height, f"{arrow} first epochs cut off", transform=axes.transAxes, va=where, fontsize=7.5,
                color=COLOURS["muted"],
            )  # fmt: skip


def precision(curve: Sequence[Sequence[float]], *, name: str, alt: str) -> str:
    """Draw the precision of the answers by the share of images answered as SVG: pairs in percent, from few to all."""
    with drawing(name):
        figure, axes = new_figure("images answered, %", fixed=True)
        share, right = zip(*curve, strict=True)
        axes.plot(share, right, color=COLOURS["student"], linewidth=1.8, marker="o" if len(curve) == 1 else "")
        axes.set_xlim(0, 103)
        axes.set_ylim(max(min(right) - max(LEAST, 0.08 * (100 - min(right))), -1), 101)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.set_ylabel("precision")
        return svg_of(figure, alt)


def sensitivity(rises: Mapping[str, Mapping[float, float]], *, name: str, alt: str) -> str:
    """Draw as SVG the increase of the loss when a single layer keeps only a fraction of its channels.

    rises: layer -> fraction kept (0..1) -> increase of the validation loss in nats; layers from top to bottom.
    """
    layers = list(rises)
    with drawing(name):
        figure, axes = new_figure("increase of the validation loss, nats")
        figure.set_size_inches(WIDTH, 0.8 + ROW * len(layers))
        for share, shade in zip(sorted(rises[layers[0]]), SHADES, strict=False):
            heights = [rises[layer][share] for layer in layers]
            axes.plot(heights, range(len(layers)), "o", color=COLOURS[shade], label=f"{share:.0%} of channels kept")
        axes.set_yticks(range(len(layers)), layers, fontsize=7.5)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.legend(fontsize=7.5, frameon=False)
        return svg_of(figure, alt)


def tradeoff(
    points: Sequence[Point], *, axis: str, tick: Callable[[float], str], name: str, alt: str, log: bool
) -> str:
    """Draw accuracy against cost as SVG, each point with its interval and its name.

    axis: label of the cost axis. tick: formats a cost as its tick label.
    """
    with drawing(name):
        figure, axes = new_figure(axis)
        _cost_axis(axes, points, tick, log)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        for p in points:
            axes.plot([p.cost] * 2, p.interval, color=COLOURS[p.model], linewidth=1.1, alpha=0.6)
            axes.plot([p.cost], [p.accuracy], color=COLOURS[p.model], marker="o", markersize=6)
        low, high = min(p.interval[0] for p in points), max(p.interval[1] for p in points)
        margin = max(0.18 * (high - low), 0.5 * (LEAST - (high - low)))
        axes.set_ylim(max(low - margin, -0.5), min(high + margin, 100.5))
        _name_points(axes, sorted(points, key=lambda p: -p.accuracy))
        return svg_of(figure, alt)


def sweep(tried: Sequence[tuple[float, float, float]], *, chosen: float, axis: str, name: str, alt: str) -> str:
    """Draw a hyperparameter sweep as SVG: (setting, value, standard error), with the chosen setting marked.

    The setting is on a logarithmic axis.
    """
    with drawing(name):
        figure, axes = new_figure(axis)
        x, y, error = zip(*sorted(tried), strict=True)
        axes.set_xscale("log")
        low, high = ([v + sign * e for v, e in zip(y, error, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=COLOURS["control"], alpha=0.18, linewidth=0)
        axes.plot(x, y, color=COLOURS["control"], linewidth=1.8, marker="o", markersize=3)
        at = (chosen, y[x.index(chosen)])
        axes.plot(*at, color=COLOURS["student"], marker="o", markersize=7)
        text = axes.annotate(f"{chosen:g}", at, xytext=(0, -14), textcoords="offset points")
        text.set(color=COLOURS["student"], ha="center", annotation_clip=False)
        axes.margins(y=0.15)
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return svg_of(figure, alt)


def reliability(points: Sequence[tuple[float, float]], count: Sequence[int], *, model: str, name: str, alt: str) -> str:
    """Draw a reliability diagram as SVG: (confidence, accuracy) in percent by bin, larger for more images."""
    with drawing(name):
        figure, axes = new_figure("confidence, %", fixed=True)
        axes.plot([0, 100], [0, 100], color=COLOURS["muted"], linewidth=0.8, linestyle=":")
        sizes = [12 + 150 * images / max(count) for images in count]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=COLOURS[model], linewidth=1.0, alpha=0.5)
        axes.scatter(x, y, s=sizes, color=COLOURS[model], zorder=3, clip_on=False)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-3, 103)
        axes.set_ylabel("accuracy, %")
        return svg_of(figure, alt)


def _cost_axis(axes: Axes, points: Sequence[Point], tick: Callable[[float], str], log: bool) -> None:
    costs = [p.cost for p in points]
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 4, max(costs) * 3)
        decades = max(costs) / min(costs) > 20
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 3.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.3 * max(costs))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Write each point's name where it covers no point, interval or other name."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes belong to a figure"
    figure.draw_without_rendering()
    unit = 72 / figure.dpi  # points per pixel
    frame = Box(*(unit * edge for edge in axes.bbox.extents))
    bodies = []
    for p in points:
        ends = [unit * axes.transData.transform((p.cost, y)) for y in (*p.interval, p.accuracy)]
        x, heights = ends[0][0], [y for _, y in ends]
        bodies.append(Box(x - 4, min(heights[0], heights[2] - 4), x + 4, max(heights[1], heights[2] + 4)))
    sizes = [(LETTER * STYLE["font.size"] * len(p.label), 1.25 * STYLE["font.size"]) for p in points]
    for p, body, box in zip(points, bodies, place(bodies, sizes, frame), strict=True):
        x, y = unit * axes.transData.transform((p.cost, p.accuracy))
        at = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
        far = body.distance(box) > 12
        leader = {"arrowstyle": "-", "color": COLOURS["muted"], "linewidth": 0.5, "shrinkB": 4, "shrinkA": 1}
        text = axes.annotate(
            p.label, (p.cost, p.accuracy), at, textcoords="offset points", arrowprops=leader if far else None
        )
        text.set(color=COLOURS[p.model], ha="center", va="center")


@contextlib.contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw in the report's style, independent of the user's matplotlib settings; element ids derive from `name`."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": name})
        yield


def new_figure(x_label: str, *, fixed: bool = False) -> tuple[Figure, Axes]:
    """Return a figure and its axes. fixed: margins that fit percentages on both axes, which is faster than a layout."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout=None if fixed else "constrained")
    if fixed:
        figure.subplots_adjust(left=0.15, right=0.98, bottom=0.16, top=0.96)
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.tick_params(pad=4)
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="x")
    return figure, axes


def svg_of(figure: Figure, alt: str) -> str:
    """Return the figure as an <svg> element to be inlined in a page."""
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # it would apply to the whole page
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))  # the rest, such as axes_1, would repeat in each chart
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable.replace('_', '-')})")
    title = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)

"""The pages of prune, quantize and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import charts, insights, pictures, sections
from potstill.report.page import Block
from potstill.report.pictures import Picture
from potstill.report.read import Run

SENSITIVE = 40  # layers of a sensitivity chart: of more, the most sensitive


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a compressed model or of exported files."""
    summary = run.summary
    rows = sections.rows_of(summary)
    yield sections.models(summary, rows)
    yield from sections.front(rows)
    yield from sections.gains(summary)
    yield from sections.notes(summary)
    yield from insights.blocks(summary, run.examples)
    drawn = pictures.curves(run.curves, name="run")
    if drawn:
        yield Block("curves", "Training curves", "charts", {"text": [], "pictures": drawn, "small": []})
    if summary.get("rounds"):
        yield _rounds(summary["rounds"])
    if summary.get("sensitivity"):
        yield _sensitivity(summary["sensitivity"])
    if summary.get("widths"):
        yield _layers(summary["widths"], "Output and input channels of each layer.", ("Layer", "Out", "In"))
    if summary.get("bits"):
        yield _layers(summary["bits"], "Bits of the weights of each layer.", ("Layer", "Bits"))
    if summary["kind"] == "export" and summary.get("ship"):
        yield _latencies(summary["models"])
    yield from sections.last(run, tuple(_facts(summary)))


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if summary.get("teacher"):
        yield "Teacher", summary["teacher"]
    if summary.get("chosen"):
        yield "Chosen", ", ".join(f"{name} {value}" for name, value in summary["chosen"].items())
    if summary.get("sparsity"):
        yield "Zero weights", words.percent(100 * summary["sparsity"])
    if summary.get("temperature"):
        yield "Temperature", f"{summary['temperature']:g}, which calibrates the probabilities on validation images"


def _rounds(rounds: list[dict[str, Any]]) -> Block:
    names = {"validation_pruned": "Pruned", "validation_reestimated": "Statistics re-estimated"}
    rows = [
        (str(number), *(words.percent(one[key]) for key in names), words.percent(one["validation_accuracy"]["last"]))
        for number, one in enumerate(rounds, 1)
    ]
    values = {"text": ["Accuracy on the validation images, after each part of a round."], "rows": rows, "small": []}
    return Block("rounds", "Rounds", "table", values | {"headings": ("Round", *names.values(), "Fine-tuned")})


def _layers(layers: Mapping[str, Any], text: str, headings: tuple[str, ...]) -> Block:
    rows = [
        (name, *(words.count(one) for one in (value if isinstance(value, list) else [value])))
        for name, value in layers.items()
    ]
    return Block("layers", "Layers", "table", {"text": [text], "headings": headings, "rows": rows, "small": []})


def _latencies(models: Mapping[str, Any]) -> Block:
    rows = []
    for name, one in models.items():
        for timed in one.get("latency") or []:
            threads = "all" if timed["threads"] == 0 else str(timed["threads"])
            median = words.milliseconds(timed["median_ms"])
            rows.append((name, str(timed["batch"]), threads, median, f"{timed['speed_up']:.2f}"))
    headings = ("File", "Batch", "Threads", "Median", "Speed vs first file")
    values = {"text": ["Measured in alternation on this machine."], "headings": headings, "rows": rows, "small": []}
    return Block("latency", "Latency", "table", values)


def _sensitivity(rises: Mapping[str, Mapping[str, float]]) -> Block:
    shown = dict(sorted(rises.items(), key=lambda item: -max(item[1].values()))[:SENSITIVE])
    ordered = {name: {float(share): rise for share, rise in rises[name].items()} for name in rises if name in shown}
    worst = ", ".join(list(shown)[:3])
    svg = charts.sensitivity(ordered, name="sensitivity", alt=f"Most sensitive layers: {worst}.")
    picture = Picture("Increase of the validation loss, nats", "when one layer alone keeps fewer channels", svg)
    values = {"text": [], "pictures": [picture], "small": []}
    return Block("sensitivity", "Sensitivity of the layers", "charts", values)

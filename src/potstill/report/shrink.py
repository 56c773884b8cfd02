"""The page of a search: the candidates as a front, forecast against outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import insights, sections
from potstill.report.front import Spot, front
from potstill.report.page import Block
from potstill.report.pictures import Picture
from potstill.report.read import Run
from potstill.report.tables import TITLES

ROLES = {
    "shipped": ("Shipped", "the file that is shipped"),
    **{role: TITLES[role] for role in ("teacher", "control", "student", "student_int8")},
}
COSTS: tuple[tuple[str, str, str, str, Callable[[float], str]], ...] = (
    ("bytes", "size", "max_bytes", "file size", words.size),
    ("latency_ms", "latency", "max_latency", "latency per image", words.milliseconds),
)


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a search."""
    summary = run.summary
    yield _front(summary)
    rows = sections.rows_of(summary, ROLES)
    yield sections.models(summary, rows)
    yield from sections.gains(summary)
    yield from sections.notes(summary)
    yield from insights.blocks(summary, run.examples)
    yield _forecast(summary["forecast"])
    yield _candidates(summary["candidates"])
    name, choice, teacher = summary["choice"]["candidate"]["name"], summary["choice"], summary["teacher"]
    looked = words.plural(choice["looked_at"], "network")
    facts = (
        ("Network", f"{name}: {choice['reason']}"),
        ("Choice", f"{looked} on {words.plural(summary['data']['splits']['validation'], 'validation image')}, which "
         f"flatters its validation accuracy by about {choice['optimism']:.1f} points; the test images were not used"),
        ("Teacher", f"{teacher['name']}, {words.percent(teacher['validation_accuracy'])} on validation"),
    )  # fmt: skip
    yield from sections.last(run, facts)


def _front(summary: Mapping[str, Any]) -> Block:
    images = words.plural(summary["data"]["splits"]["validation"], "validation image")
    text = (
        f"Every candidate that was trained, by its accuracy on {images} with the bits of its file. Candidates that "
        "break a budget were not trained."
    )
    values = {"text": [text], "pictures": pictures(summary), "small": around(summary)}
    return Block("front", "Front", "charts", values)


def pictures(summary: Mapping[str, Any]) -> list[Picture]:
    """Return accuracy against size and against latency."""
    return [_picture(summary, *one) for one in COSTS]


def _picture(
    summary: Mapping[str, Any], key: str, short: str, budget: str, axis: str, tick: Callable[[float], str]
) -> Picture:
    spots = [
        Spot(one["name"], one[key], one["validation_accuracy"], _state(one))
        for one in sorted(summary["candidates"], key=lambda one: one["chosen"])
    ]
    values = "; ".join(f"{spot.label} {words.percent(spot.accuracy)} at {tick(spot.cost)}" for spot in spots)
    limit = summary["recipe"]["budgets"][budget]
    target = summary["ship"]["target"]
    drawn = front(
        spots,
        teacher=summary["teacher"]["validation_accuracy"],
        limit=limit,
        goal=target["accuracy"] if target else None,
        axis=axis,
        tick=tick,
        name=f"front-{key}",
        alt=f"Validation accuracy and {short} of the candidates: {values}.",
    )
    shaded = f" Shaded: beyond the budget of {tick(limit)}." if limit else ""
    return Picture(
        f"Validation accuracy vs {short}",
        f"Blue: chosen. Dark: trained to the end. Light: trained briefly.{shaded}",
        drawn,
    )


def _state(one: Mapping[str, Any]) -> str:
    return "chosen" if one["chosen"] else "finalist" if one["finalist"] else "lost"


def around(summary: Mapping[str, Any]) -> list[str]:
    """Return what it costs to go smaller, and what a larger candidate brings, among those trained to the end.

    Those with few bits would use the whole budget, whatever their network: their size says nothing.
    """
    chosen = next(one for one in summary["candidates"] if one["chosen"])
    others = [one for one in summary["candidates"] if one["finalist"] and not one["chosen"] and one["bits"] >= 8]
    sentences = []
    smaller = [one for one in others if one["bytes"] < chosen["bytes"]]
    larger = [one for one in others if one["bytes"] > chosen["bytes"]]
    if smaller:
        one = max(smaller, key=lambda each: each["validation_accuracy"])
        sentences.append(f"Smaller: {_against(one, chosen)}")
    if larger:
        one = max(larger, key=lambda each: each["validation_accuracy"])
        sentences.append(f"Larger: {_against(one, chosen)}")
    return sentences


def _against(one: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    points = one["validation_accuracy"] - chosen["validation_accuracy"]
    return (
        f"{one['name']} has {words.size(one['bytes'])} instead of {words.size(chosen['bytes'])} and "
        f"{words.signed(points)} points of validation accuracy."
    )


def _forecast(forecast: Mapping[str, Any]) -> Block:
    student, outcome = forecast["student"], forecast["outcome"]
    low, high = (words.percent(bound) for bound in student["interval"])
    facts = [
        ("Forecast", f"{words.percent(student['accuracy'])} test accuracy, between {low} and {high}"),
        ("Outcome", f"{words.percent(outcome['accuracy'])}: {'inside' if outcome['held'] else 'outside'} the interval"),
        ("Teacher", forecast["gain"]["sentence"]),
    ]
    if "curve" in forecast:
        facts.append(("More labels", forecast["curve"]["sentence"]))
    backbones = [
        (one["model"], words.percent(one["accuracy"]), "{:.1f} to {:.1f}".format(*one["interval"]))
        for one in forecast.get("backbones", [])
    ]
    return Block("forecast", "Forecast and outcome", "forecast", {"facts": facts, "backbones": backbones})


def _candidates(found: list[dict[str, Any]]) -> Block:
    ordered = sorted(found, key=lambda one: (-one["validation_accuracy"], one["bytes"]))
    rows = [
        (
            one["name"] + (" (chosen)" if one["chosen"] else ""),
            words.percent(one["validation_accuracy"]),
            str(one["epochs"]),
            words.size(one["bytes"]),
            words.size(one["ram_int8"]),
            words.count(one["macs"]),
            words.milliseconds(one["latency_ms"]),
        )
        for one in ordered
    ]
    headings = ("Network", "Validation accuracy", "Epochs", "File", "Activations", "Multiply-accumulates", "Latency")
    return Block("candidates", "Candidates", "table", {"text": [], "headings": headings, "rows": rows, "small": []})

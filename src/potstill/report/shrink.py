"""The report of a search, `report.html`: what to ship, the front, forecast against outcome."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.artifacts import read_json, write_text
from potstill.evaluation.statistics import FINE
from potstill.report.front import Spot, front
from potstill.report.pictures import Picture
from potstill.report.templates import filled

ROLES = {
    "shipped": "The file that is shipped",
    "teacher": "The teacher",
    "student": "The same student, mean over seeds, float",
    "student_int8": "The same student, mean over seeds, 8 bits",
    "control": "The control: without the teacher, mean over seeds, float",
}
COSTS: tuple[tuple[str, str, str, str, Callable[[float], str]], ...] = (
    ("bytes", "size", "max_bytes", "file size", words.size),
    ("latency_ms", "latency", "max_latency", "latency per image", words.milliseconds),
)


def write_shrink(folder: Path) -> Path:
    """Write report.html into the folder of a finished `shrink`; return its path."""
    write_text(folder / "report.html", render(read_json(folder / "summary.json"), folder))
    return folder / "report.html"


def render(summary: dict[str, Any], folder: Path) -> str:
    """Return the page; it needs no network and no other file."""
    digits = digits_of(summary)
    return filled(
        "shrink.html",
        words=words,
        summary=summary,
        digits=digits,
        headline=headline(summary, digits),
        tone=tone(summary),
        lines=lines(summary),
        tiles=tiles(summary, digits),
        steps=next_steps(summary, folder),
        pictures=pictures(summary),
        rows=rows(summary),
        candidates=sorted(summary["candidates"], key=lambda one: (-one["validation_accuracy"], one["bytes"])),
        around=around(summary),
        recipe=yaml.safe_dump(summary["recipe"], sort_keys=False, allow_unicode=True, width=90),
    )


def headline(summary: dict[str, Any], digits: int) -> str:
    """Return what to ship, in one sentence."""
    ship = summary["ship"]
    return f"Ship {ship['file']}: {words.percent(ship['accuracy'], digits)} in {words.size(ship['bytes'])}"


def tone(summary: dict[str, Any]) -> str:
    """Return the tone of the page: bad below the target or no better than guessing."""
    ship = summary["ship"]
    if ship["interval"][0] <= guessing(summary) or (summary["target"] and not summary["target"]["met"]):
        return "bad"
    return "good" if summary["target"] or summary["verdict"]["result"] == "BEATS" else "even"


def guessing(summary: dict[str, Any]) -> float:
    """Return the accuracy in percent of always answering the most frequent class."""
    counts = summary["look"]["labels"].values()
    return 100 * max(counts) / max(sum(counts), 1)


def digits_of(summary: dict[str, Any]) -> int:
    """Return the decimals of accuracies."""
    return 2 if summary["data"]["splits"]["test"] >= FINE else 1


def lines(summary: dict[str, Any]) -> list[str]:
    """Return five sentences: what to ship, how good, how big, how fast, how sure."""
    digits = digits_of(summary)
    ship, target, verdict = summary["ship"], summary["target"], summary["verdict"]
    low, high = (f"{bound:.{digits}f}" for bound in ship["interval"])
    teacher = summary["models"].get("teacher", {}).get("accuracy")
    gap = "" if teacher is None else f", {abs(teacher - ship['accuracy']):.{digits}f} points "
    gap += "" if teacher is None else f"{'below' if ship['accuracy'] < teacher else 'above'} the teacher"
    name = summary["choice"]["candidate"]["name"]
    bits = f"{ship['bits']}-bit weights"
    images = words.plural(ship["images"], "test image")
    good = f"{words.percent(ship['accuracy'], digits)} of {images} (95 % interval {low} to {high}){gap}."
    if ship["interval"][0] <= guessing(summary):
        good += f" This is no better than guessing ({words.percent(guessing(summary), digits)})."
    if target:
        good += f" The target of {words.percent(target['accuracy'], digits)} is {'' if target['met'] else 'not '}met."
    slower = ship["latency_ms"] > ship["float_latency_ms"]
    return [
        f"Ship {ship['file']}: {name} with {bits} ({ship['kind']}, seed {ship['seed']}, the best on validation).",
        good,
        f"{words.size(ship['bytes'])}, {words.count(ship['parameters'])} parameters, peak activations "
        f"{words.size(ship['ram'])} in 8 bits.",
        f"{words.milliseconds(ship['latency_ms'])} per image on one thread here, {words.count(ship['macs'])} "
        f"multiply-accumulates; the float file takes {words.milliseconds(ship['float_latency_ms'])}"
        f"{': 8 bits are smaller here, not faster' if slower else ''}.",
        f"{verdict['sentence']} The choice looked at {words.plural(summary['choice']['looked_at'], 'network')} on "
        f"{words.plural(summary['data']['splits']['validation'], 'validation image')}, which flatters its validation "
        f"accuracy by about {summary['choice']['optimism']:.1f} points; the test images were not used for any choice.",
    ]


def next_steps(summary: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Return commands that work as printed: (purpose, command)."""
    place = shlex.quote(str(folder))
    file = shlex.quote(str(folder / summary["ship"]["file"]))
    data = shlex.quote(summary["data"]["source"])
    return [
        ("Measure the file again:", f"potstill evaluate {file} {data}"),
        ("Files for other runtimes:", f"potstill export {place}"),
    ]


def tiles(summary: dict[str, Any], digits: int) -> list[tuple[str, str]]:
    """Return the headline figures: (figure, caption)."""
    ship = summary["ship"]
    teacher = summary["models"].get("teacher", {})
    low, high = (f"{bound:.{digits}f}" for bound in ship["interval"])
    figures = [
        (words.percent(ship["accuracy"], digits), f"test accuracy of the file (95 % interval {low} to {high})"),
        (words.size(ship["bytes"]), f"{ship['file']}" + _of_teacher(ship["bytes"], teacher.get("bytes"))),
        (words.milliseconds(ship["latency_ms"]), "per image, one thread, this machine"),
        (words.size(ship["ram"]), "peak of the activations in 8 bits"),
    ]
    if "accuracy" in teacher:
        figures.append((words.percent(teacher["accuracy"], digits), "test accuracy of the teacher"))
    return figures


def _of_teacher(part: int, whole: int | None) -> str:
    return f"; the teacher has {words.size(whole)}" if whole else ""


def pictures(summary: dict[str, Any]) -> list[Picture]:
    """Return accuracy against size and against latency."""
    return [_picture(summary, *one) for one in COSTS]


def _picture(
    summary: dict[str, Any], key: str, short: str, budget: str, axis: str, tick: Callable[[float], str]
) -> Picture:
    spots = [
        Spot(one["name"], one[key], one["validation_accuracy"], _state(one))
        for one in sorted(summary["candidates"], key=lambda one: one["chosen"])
    ]
    values = "; ".join(f"{spot.label} {words.percent(spot.accuracy)} at {tick(spot.cost)}" for spot in spots)
    limit = summary["recipe"]["budgets"][budget]
    target = summary["target"]
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


def _state(one: dict[str, Any]) -> str:
    return "chosen" if one["chosen"] else "finalist" if one["finalist"] else "lost"


def rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of models."""
    return [
        {"role": role, "title": title, **summary["models"][role]}
        for role, title in ROLES.items()
        if role in summary["models"]
    ]


def around(summary: dict[str, Any]) -> list[str]:
    """Return what it costs to go smaller, and what a larger candidate brings, among those trained to the end."""
    chosen = next(one for one in summary["candidates"] if one["chosen"])
    others = [one for one in summary["candidates"] if one["finalist"] and not one["chosen"]]
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


def _against(one: dict[str, Any], chosen: dict[str, Any]) -> str:
    points = one["validation_accuracy"] - chosen["validation_accuracy"]
    return (
        f"{one['name']} has {words.size(one['bytes'])} instead of {words.size(chosen['bytes'])} and "
        f"{words.signed(points)} points of validation accuracy."
    )

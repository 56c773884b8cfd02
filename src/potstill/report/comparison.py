"""The page of a comparison: methods against the control, for each student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.evaluation.statistics import FINE
from potstill.report import charts, exports, sections
from potstill.report.advice import TONES
from potstill.report.page import Block, First
from potstill.report.pictures import Picture
from potstill.report.read import Run
from potstill.report.tables import forest


def head(run: Run) -> First:
    """Return the first screen: the result, and what was compared."""
    summary = run.summary
    title = summary["recipe"].get("title") or summary["name"]
    return First(headline(summary), "even", "", (f"{title}. {exports.setting(summary)}",))


def headline(summary: Mapping[str, Any]) -> str:
    """Return the result of the comparison in one sentence."""
    verdicts = [
        (method["method"], method["corrected"]) for _, method in exports.methods(summary) if "corrected" in method
    ]
    results = [result for _, result in verdicts]
    better, worse = results.count("BEATS"), results.count("LOSES")
    students = len(summary["students"])
    if not better and not worse:
        tried = words.plural(len({name for name, _ in verdicts}), "method")
        size = f"{tried} x {words.plural(students, 'student')}" if students > 1 else tried
        return f"No method differed significantly from the control ({size})"
    pairs = words.plural(len(results), "pair") + " of method and student" if students > 1 else ""
    of = pairs or words.plural(len(results), "method")
    parts = [f"{better} of {of} beat the control"] if better else []
    parts += [f"{worse} of {of} lost to the control"] if worse else []
    return ", ".join(parts)


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a comparison."""
    summary = run.summary
    yield from _front(summary)
    for number, (name, student) in enumerate(summary["students"].items(), 1):
        yield Block(f"student-{number}", name, "student", described(summary, name, student))
    yield from sections.notes(summary)
    how = exports.how(summary).replace("*", "")
    yield Block("reading", "How to read it", "method", {"text": [how], "facts": []})
    links = [(name, name) for name in exports.TABLES]
    text = ["The same tables for a spreadsheet, a page and a paper."]
    yield Block("files", "Files", "use", {"text": text, "links": links, "parity": None, "code": ""})
    yield from sections.last(run)


def _front(summary: Mapping[str, Any]) -> Iterator[Block]:
    """Yield accuracy against parameters: of each student the control and its most accurate method."""
    points = [
        charts.Point(colour, f"{name}: {one['method']}", student["parameters"], one["accuracy"], _clipped(one))
        for name, student in summary["students"].items()
        for colour, one in _ends(student["methods"])
    ]
    if len(points) < 2:
        return
    costs = [point.cost for point in points]
    values = "; ".join(f"{p.label} {words.percent(p.accuracy)} at {words.count(p.cost)} parameters" for p in points)
    svg = charts.tradeoff(
        points, axis="parameters", tick=words.count, name="front", alt=f"Accuracy and parameters: {values}.",
        log=max(costs) / min(costs) > 5,
    )  # fmt: skip
    picture = Picture("Accuracy vs parameters", "Of each student the control and the most accurate method.", svg)
    yield Block("front", "Front", "charts", {"text": [], "pictures": [picture], "small": []})


def _ends(methods: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    control, *others = methods
    yield "control", control
    if others:
        yield "student", max(others, key=lambda one: one["accuracy"])


def _clipped(one: Mapping[str, Any]) -> tuple[float, float]:
    low, high = one["interval"] or (one["accuracy"], one["accuracy"])
    return max(low, 0.0), min(high, 100.0)


def described(summary: Mapping[str, Any], name: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """Return a student's table, and its forest plot."""
    digits = 2 if summary["data"]["splits"]["test"] >= FINE else 1
    distilled = [method for method in student["methods"] if "verdict" in method]
    rows = [
        {
            "name": method["method"],
            "tone": TONES[method["corrected"]],
            "label": label(method),
            "difference": method["verdict"]["difference"],
            "interval": method["verdict"]["interval"],
        }
        for method in sorted(distilled, key=lambda method: -method["verdict"]["difference"])
    ]
    plotted = forest(rows, digits)
    trials = [
        (
            method["method"],
            ", ".join(f"{key} = {value}" for key, value in trial["settings"].items()),
            f"{trial['validation_accuracy']:.2f}",
            f"{trial['seconds']:.1f}",
        )
        for method in student["methods"]
        for trial in method["trials"] or []
    ]
    text = [
        f"{student['model']}, {words.count(student['parameters'])} parameters. Differences from the control in points "
        "of test accuracy, with 95 % intervals of each method by itself: right of the line a method is better than the "
        "control, left of it worse. The label at the end is the verdict after Holm's correction for the number of "
        "methods: TIES* marks a bar that is clear of the line by itself, but not after the correction."
    ]
    values = {
        "text": text,
        "forest": plotted["rows"],
        "zero": plotted["zero"],
        "ticks": plotted["ticks"],
        "name": name,
        "trials": trials,
    }
    return values | {"headings": exports.HEADINGS, "rows": list(exports.table(summary, student))}


def label(method: Mapping[str, Any]) -> str:
    """Return the corrected verdict, with a star where the interval alone is clear of zero."""
    low, high = method["verdict"]["interval"]
    return f"{method['corrected']}{'*' * (method['corrected'] == 'TIES' and (low > 0 or high < 0))}"

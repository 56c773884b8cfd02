"""What a student took over from its teacher, over a whole data set, as one page: `potstill explain MODEL DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill import words
from potstill.artifacts import write_text
from potstill.report import charts
from potstill.report.templates import filled

TITLES = {"teacher": "Teacher", "student": "Student", "control": "Control"}


def write_likeness(found: dict[str, Any], file: Path) -> Path:
    """Write the page for what `stages.explain.explain_set` returned; return its path."""
    write_text(file, render(found))
    return file


def render(found: dict[str, Any]) -> str:
    """Return the page; it needs no network and no other file."""
    return filled(
        "likeness.html",
        words=words,
        found=found,
        titles={who: TITLES[who] for who in TITLES if who in found["accuracy"]},
        headline=headline(found),
        diagrams={who: reliability(who, found["calibration"][who]) for who in found["calibration"]},
    )


def headline(found: dict[str, Any]) -> str:
    """Return in one sentence how like its teacher the student is."""
    told = f"Student and teacher agree on {words.percent(found['agreement']['student'])} of the images"
    if "control" in found["agreement"]:
        told += f", the control on {words.percent(found['agreement']['control'])}"
    return told


def reliability(who: str, calibration: dict[str, Any]) -> str:
    """Return a reliability diagram as SVG: how often a model is right when it says how sure it is."""
    points = list(zip(calibration["confidence"], calibration["accuracy"], strict=True))
    told = "; ".join(f"{sure:.0f} % sure, {right:.0f} % right" for sure, right in points)
    alt = f"Reliability of the {who}: {told}."
    return charts.reliability(points, calibration["count"], model=who, name=f"reliability-{who}", alt=alt)

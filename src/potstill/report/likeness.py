"""Agreement of a student with its teacher over a data set, as one page: `potstill explain MODEL DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill import words
from potstill.artifacts import write_text
from potstill.report import charts
from potstill.report.templates import filled

TITLES = {"teacher": "Teacher", "student": "Student", "control": "Control"}


def write_likeness(result: dict[str, Any], file: Path) -> Path:
    """Write the page for a result of `stages.inference.explain.explain_set`; return its path."""
    write_text(file, render(result))
    return file


def render(result: dict[str, Any]) -> str:
    """Return the page; it needs no network and no other file."""
    return filled(
        "likeness.html",
        words=words,
        result=result,
        titles={model: TITLES[model] for model in TITLES if model in result["accuracy"]},
        headline=headline(result),
        diagrams={model: reliability(model, result["calibration"][model]) for model in result["calibration"]},
    )


def headline(result: dict[str, Any]) -> str:
    """Return the agreement of student and teacher in one sentence."""
    sentence = f"Student and teacher agree on {words.percent(result['agreement']['student'])} of the images"
    if "control" in result["agreement"]:
        sentence += f", control and teacher on {words.percent(result['agreement']['control'])}"
    return sentence


def reliability(model: str, calibration: dict[str, Any]) -> str:
    """Return a reliability diagram as SVG: accuracy against confidence."""
    points = list(zip(calibration["confidence"], calibration["accuracy"], strict=True))
    values = "; ".join(f"confidence {confidence:.0f} %, accuracy {accuracy:.0f} %" for confidence, accuracy in points)
    alt = f"Reliability of the {model}: {values}."
    return charts.reliability(points, calibration["count"], model=model, name=f"reliability-{model}", alt=alt)

"""One page for people: `report.html`, made from a run folder, whole in itself.

The page is put together here from words, tables and pictures; how it looks is in report.html and report.css.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potstill.artifacts import write_text
from potstill.evaluation.statistics import FINE
from potstill.report import pictures, words
from potstill.report.advice import TONES, advise, compared, mean_accuracy
from potstill.report.read import Curves, Run, read_run
from potstill.report.tables import TITLES, bars, columns, model_rows
from potstill.report.templates import filled

OPTIONAL: dict[str, Any] = {"models": {}, "comparisons": [], "export": {}, "stages": [], "notes": [], "recipe": {}}


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder from its summary, curves and examples; return its path.

    The page needs no network and no other file. Sections for which the run has nothing are left out.
    Raises `RunError` where the folder has no summary.json.
    """
    file = run_folder / "report.html"
    write_text(file, render(read_run(run_folder)))
    return file


def render(run: Run) -> str:
    """Return the page of a run."""
    return filled("report.html", **context(run))


def context(run: Run) -> dict[str, Any]:
    """Return everything that the page says."""
    summary = {**OPTIONAL, **run.summary}
    images = summary["data"]["splits"]["test"]
    digits = 2 if images >= FINE else 1
    whole = summary["models"].get("teacher", {}).get("bytes")
    rows = model_rows(summary["models"], images, digits, whole=whole)
    return {
        "words": words,
        "summary": summary,
        "digits": digits,
        "titles": TITLES,
        "advice": advise(summary, digits),
        "verdict": verdict(summary.get("verdict"), digits),
        "tiles": tiles(summary, digits),
        "rows": rows,
        "columns": columns(rows),
        "tradeoffs": pictures.tradeoffs(rows),
        "curves": pictures.curves(run.curves, name="run"),
        "several": any(len(seeds) > 1 for seeds in run.curves.values()),
        "epochs": last_and_best(summary["models"], digits),
        "examples": examples(run.examples),
        "comparisons": [
            comparison(one, curves, images, digits, whole, number)
            for number, (one, curves) in enumerate(zip(summary["comparisons"], run.comparisons, strict=True))
        ],
        "recipe": yaml.safe_dump(summary["recipe"], sort_keys=False, allow_unicode=True, width=90),
    }


def verdict(found: dict[str, Any] | None, digits: int) -> dict[str, Any] | None:
    """Return a verdict's words and where its interval lies on a scale with zero, in percent of the scale's width."""
    if found is None:
        return None
    low, high = found["interval"]
    left, right = min(0.0, low), max(0.0, high)
    width = (right - left) or 1.0
    left, width = left - 0.15 * width, 1.3 * width
    return {
        **found,
        "label": compared(found, digits),
        "tone": TONES[found["result"]],
        "at": {name: 100 * (value - left) / width for name, value in (("zero", 0.0), ("low", low), ("high", high))},
        "dot": 100 * (found["difference"] - left) / width,
        "difference_text": words.signed(found["difference"], digits),
        "interval_text": f"{words.signed(low, digits)} to {words.signed(high, digits)}",
        "percent": f"{100 * found.get('confidence', 0.95):g}",
    }


def tiles(summary: dict[str, Any], digits: int) -> list[tuple[str, str]]:
    """Return the figures that people ask for first: (figure, what it is)."""
    models = summary["models"]
    teacher, student, small = (models.get(name, {}) for name in ("teacher", "student", "student_int8"))
    found = []
    accuracy, best = mean_accuracy(student), mean_accuracy(teacher)
    if accuracy is not None:
        beside = f" (teacher: {words.percent(best, digits)})" if best is not None else ""
        found.append((words.percent(accuracy, digits), f"test accuracy of the student{beside}"))
    if teacher.get("bytes"):
        of = f"instead of {words.size(teacher['bytes'])}"
        for model, name in ((student, "the student"), (small, "in 8 bits")):
            if model.get("bytes"):
                told = f"of the teacher's size: {name}, {words.size(model['bytes'])} {of}"
                found.append((words.share_of(model["bytes"], teacher["bytes"]), told))
    if student.get("latency_ms") and teacher.get("latency_ms"):
        beside = f"(teacher: {words.milliseconds(teacher['latency_ms'])})"
        found.append((words.milliseconds(student["latency_ms"]), f"for one image, on one core {beside}"))
    return found


def last_and_best(models: dict[str, Any], digits: int) -> list[str]:
    """Return, for each trained model, its validation accuracy after the last epoch and at its best."""
    told = []
    for key, (title, _) in TITLES.items():
        found = models.get(key, {}).get("validation_accuracy")
        if isinstance(found, dict) and found.get("last") and found.get("best"):
            last, best = (words.percent(sum(found[k]) / len(found[k]), digits) for k in ("last", "best"))
            told.append(f"{title}: {last} after the last epoch, {best} at its best epoch.")
    return told


def comparison(
    told: dict[str, Any], curves: Curves, images: int, digits: int, whole: float | None, number: int
) -> dict[str, Any]:
    """Return what the page says of another comparison."""
    rows = model_rows(told["models"], images, digits, whole=whole)
    return {
        **told,
        "verdict": verdict(told.get("verdict"), digits),
        "rows": rows,
        "columns": columns(rows),
        "curves": pictures.curves(curves, name=f"comparison-{number}"),
    }


def examples(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the example images with the bars beside them."""
    if not found or not found["examples"]:
        return None
    classes, temperature = found["classes"], found["temperature"]
    shown = [
        {"image": one["image"], "label": classes[one["label"]], "bars": bars(one, classes)} for one in found["examples"]
    ]
    return {"temperature": temperature, "softened": temperature != 1, "shown": shown}

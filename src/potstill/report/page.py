"""The report of a run, `report.html`: one self-contained page.

This module collects text, tables and charts; the layout is in report.html and report.css.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.artifacts import write_text
from potstill.evaluation.statistics import FINE
from potstill.model_files import snippets
from potstill.report import pictures
from potstill.report.advice import TONES, advise, compared, mean_accuracy
from potstill.report.read import Curves, Run, read_run
from potstill.report.runner.play import play
from potstill.report.tables import TITLES, bars, columns, model_rows
from potstill.report.templates import filled

OPTIONAL: dict[str, Any] = {"models": {}, "comparisons": [], "export": {}, "stages": [], "notes": [], "recipe": {}}


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder from its summary, curves and examples; return its path.

    The page needs no network and no other file. Sections without data are left out.
    Raises `RunError` if the folder has no summary.json.
    """
    file = run_folder / "report.html"
    write_text(file, render(read_run(run_folder)))
    return file


def render(run: Run) -> str:
    """Return the page of a run."""
    return filled("report.html", **context(run))


def context(run: Run) -> dict[str, Any]:
    """Return the values of the template report.html."""
    summary = {**OPTIONAL, **run.summary}
    images = summary["data"]["splits"]["test"]
    digits = 2 if images >= FINE else 1
    whole = summary["models"].get("teacher", {}).get("bytes")
    accuracy = mean_accuracy(summary["models"].get("student", {}))
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
        "usage": snippets.use("student.onnx") if "from_photo" in summary["models"].get("student", {}) else "",
        "recipe": yaml.safe_dump(summary["recipe"], sort_keys=False, allow_unicode=True, width=90),
        "play": play(
            [run.folder / "student.onnx", run.folder / "student_int8.onnx"],
            examples=[one["image"] for one in (run.examples or {"examples": []})["examples"]],
            accuracy=words.percent(accuracy, digits) if accuracy is not None else "",
        ),
        "_": str,
    }


def verdict(result: dict[str, Any] | None, digits: int) -> dict[str, Any] | None:
    """Return a verdict with its texts and its place on a scale with zero, in percent of the width of the scale."""
    if result is None:
        return None
    low, high = result["interval"]
    left, right = min(0.0, low), max(0.0, high)
    width = (right - left) or 1.0
    left, width = left - 0.15 * width, 1.3 * width
    return {
        **result,
        "label": compared(result, digits),
        "tone": TONES[result["result"]],
        "at": {name: 100 * (value - left) / width for name, value in (("zero", 0.0), ("low", low), ("high", high))},
        "dot": 100 * (result["difference"] - left) / width,
        "difference_text": words.signed(result["difference"], digits),
        "interval_text": f"{words.signed(low, digits)} to {words.signed(high, digits)}",
        "percent": f"{100 * result.get('confidence', 0.95):g}",
    }


def tiles(summary: dict[str, Any], digits: int) -> list[tuple[str, str]]:
    """Return the headline figures: (figure, caption)."""
    models = summary["models"]
    teacher, student, int8 = (models.get(name, {}) for name in ("teacher", "student", "student_int8"))
    figures = []
    accuracy, teacher_accuracy = mean_accuracy(student), mean_accuracy(teacher)
    if accuracy is not None:
        reference = f" (teacher: {words.percent(teacher_accuracy, digits)})" if teacher_accuracy is not None else ""
        figures.append((words.percent(accuracy, digits), f"test accuracy of the student{reference}"))
    if teacher.get("bytes"):
        for model, name in ((student, "student"), (int8, "int8 student")):
            if model.get("bytes"):
                caption = f"vs teacher: {name} {words.size(model['bytes'])}, teacher {words.size(teacher['bytes'])}"
                figures.append((words.ratio(model["bytes"], teacher["bytes"]), caption))
    if student.get("latency_ms") and teacher.get("latency_ms"):
        caption = f"latency per image on one core (teacher: {words.milliseconds(teacher['latency_ms'])})"
        figures.append((words.milliseconds(student["latency_ms"]), caption))
    return figures


def last_and_best(models: dict[str, Any], digits: int) -> list[str]:
    """Return, for each trained model, its validation accuracy after the last and after the best epoch."""
    sentences = []
    for key, (title, _) in TITLES.items():
        accuracy = models.get(key, {}).get("validation_accuracy")
        if isinstance(accuracy, dict) and accuracy.get("last") and accuracy.get("best"):
            last, best = (words.percent(sum(accuracy[k]) / len(accuracy[k]), digits) for k in ("last", "best"))
            sentences.append(f"{title}: {last} after the last epoch, {best} after the best epoch.")
    return sentences


def comparison(
    result: dict[str, Any], curves: Curves, images: int, digits: int, whole: float | None, number: int
) -> dict[str, Any]:
    """Return the template values of another comparison of the run."""
    rows = model_rows(result["models"], images, digits, whole=whole)
    return {
        **result,
        "verdict": verdict(result.get("verdict"), digits),
        "rows": rows,
        "columns": columns(rows),
        "curves": pictures.curves(curves, name=f"comparison-{number}"),
    }


def examples(content: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the example images of examples.json with their bars of probabilities."""
    if not content or not content["examples"]:
        return None
    classes, temperature = content["classes"], content["temperature"]
    shown = [
        {"image": one["image"], "label": classes[one["label"]], "bars": bars(one, classes)}
        for one in content["examples"]
    ]
    return {"temperature": temperature, "softened": temperature != 1, "shown": shown}

"""The page of a run: teacher, controls and students, and other comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import insights, pictures, sections
from potstill.report.advice import scaled
from potstill.report.first import digits_of
from potstill.report.page import Block
from potstill.report.read import Curves, Run
from potstill.report.tables import TITLES, columns, model_rows


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a run."""
    summary = run.summary
    rows = sections.rows_of(summary)
    yield sections.models(summary, rows)
    yield from sections.front(rows)
    yield from sections.gains(summary)
    yield from sections.notes(summary)
    yield from insights.blocks(summary, run.examples)
    yield from curves(run)
    if summary.get("comparisons"):
        yield comparisons(run)
    yield from sections.last(run)


def curves(run: Run) -> Iterator[Block]:
    """Yield validation accuracy, learning rate, and every loss term over epochs."""
    drawn = pictures.curves(run.curves, name="run")
    if drawn:
        several = any(len(seeds) > 1 for seeds in run.curves.values())
        text = ["Bold lines are the mean over seeds, thin lines the individual seeds."] if several else []
        epochs = last_and_best(run.summary["models"], digits_of(run.summary))
        small = [f"Validation accuracy. {' '.join(epochs)}"] if epochs else []
        yield Block("curves", "Training curves", "charts", {"text": text, "pictures": drawn, "small": small})


def last_and_best(models: Mapping[str, Any], digits: int) -> list[str]:
    """Return, for each trained model, its validation accuracy after the last and after the best epoch."""
    sentences = []
    for key, (title, _) in TITLES.items():
        accuracy = models.get(key, {}).get("validation_accuracy")
        if isinstance(accuracy, dict) and accuracy.get("last") and accuracy.get("best"):
            last, best = (words.percent(sum(accuracy[k]) / len(accuracy[k]), digits) for k in ("last", "best"))
            sentences.append(f"{title}: {last} after the last epoch, {best} after the best epoch.")
    return sentences


def comparisons(run: Run) -> Block:
    """Return the other comparisons of a run."""
    found = zip(run.summary["comparisons"], run.comparisons, strict=True)
    shown = [_comparison(run.summary, one, curves_, number) for number, (one, curves_) in enumerate(found)]
    return Block("comparisons", "Other comparisons", "comparisons", {"comparisons": shown})


def _comparison(summary: Mapping[str, Any], one: Mapping[str, Any], curves_: Curves, number: int) -> dict[str, Any]:
    digits, images = digits_of(summary), summary["data"]["splits"]["test"]
    rows = model_rows(one["models"], images, digits, whole=summary["models"].get("teacher", {}).get("bytes"))
    return {
        **one,
        "verdict": scaled(one["verdict"], digits) if one.get("verdict") else None,
        "rows": rows,
        "columns": columns(rows),
        "curves": pictures.curves(curves_, name=f"comparison-{number}"),
    }

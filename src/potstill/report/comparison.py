"""The report of a comparison, `report.html`, and its tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.artifacts import read_object, write_text
from potstill.evaluation.statistics import FINE
from potstill.report import exports
from potstill.report.advice import TONES
from potstill.report.templates import filled


def write_comparison(folder: Path) -> Path:
    """Write report.html, comparison.csv, cells.csv, comparison.md and comparison.tex; return the page's path."""
    summary = read_object(folder / "summary.json")
    write_text(folder / "comparison.csv", exports.comparison_csv(summary))
    write_text(folder / "cells.csv", exports.cells_csv(summary))
    write_text(folder / "comparison.md", exports.markdown(summary))
    write_text(folder / "comparison.tex", exports.latex(summary))
    write_text(folder / "report.html", render(summary))
    return folder / "report.html"


def render(summary: dict[str, Any]) -> str:
    """Return the page; it needs no network and no other file."""
    return filled(
        "comparison.html",
        words=words,
        summary=summary,
        title=summary["recipe"].get("title") or summary["name"],
        headline=headline(summary),
        setting=exports.setting(summary),
        how=exports.how(summary).replace("*", ""),
        headings=exports.HEADINGS,
        students={name: described(summary, student) for name, student in summary["students"].items()},
        recipe=yaml.safe_dump(summary["recipe"], sort_keys=False, allow_unicode=True, width=90),
    )


def headline(summary: dict[str, Any]) -> str:
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


def described(summary: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """Return a student's table, and its forest plot: intervals on a scale with zero, in percent of the width."""
    cells = list(exports.table(summary, student))
    distilled = [method for method in student["methods"] if "verdict" in method]
    ends = [0.0, *(bound for method in distilled for bound in method["verdict"]["interval"])]
    width = (max(ends) - min(ends)) or 1.0
    left, width = min(ends) - 0.08 * width, 1.16 * width

    def at(value: float) -> float:
        return round(100 * (value - left) / width, 2)

    digits = 2 if summary["data"]["splits"]["test"] >= FINE else 1
    forest = [
        {
            "name": method["method"],
            "tone": TONES[method["corrected"]],
            "low": at(method["verdict"]["interval"][0]),
            "high": at(method["verdict"]["interval"][1]),
            "dot": at(method["verdict"]["difference"]),
            "text": words.signed(method["verdict"]["difference"], digits),
            "label": method["corrected"],
        }
        for method in sorted(distilled, key=lambda method: -method["verdict"]["difference"])
    ]
    trials = {method["method"]: method["trials"] for method in student["methods"] if method["trials"]}
    return {**student, "rows": cells, "forest": forest, "zero": at(0.0), "trials": trials}

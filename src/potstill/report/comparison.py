"""The page of a comparison, `report.html`, and its tables as CSV, Markdown and LaTeX beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potstill.artifacts import read_json, write_text
from potstill.evaluation.statistics import FINE
from potstill.report import exports, words
from potstill.report.advice import TONES
from potstill.report.templates import filled


def write_comparison(folder: Path) -> Path:
    """Write report.html, comparison.csv, cells.csv, comparison.md and comparison.tex; return the page's path."""
    summary = read_json(folder / "summary.json")
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
    """Return in one sentence what came out."""
    told = [one.get("corrected") for _, one in exports.methods(summary) if "corrected" in one]
    better, worse = told.count("BEATS"), told.count("LOSES")
    if not better and not worse:
        return f"No method of {len(told)} could be told from the control" if len(told) > 1 else "A tie with the control"
    parts = [f"{better} of {words.plural(len(told), 'method')} beat the control"] if better else []
    parts += [f"{worse} of {words.plural(len(told), 'method')} did harm"] if worse else []
    return ", ".join(parts)


def described(summary: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """Return a student's table, and where each method's interval lies on a common scale with zero, in percent."""
    cells = list(exports.table(summary, student))
    taught = [method for method in student["methods"] if "verdict" in method]
    ends = [0.0, *(bound for method in taught for bound in method["verdict"]["interval"])]
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
        for method in sorted(taught, key=lambda method: -method["verdict"]["difference"])
    ]
    trials = {method["method"]: method["trials"] for method in student["methods"] if method["trials"]}
    return {**student, "rows": cells, "forest": forest, "zero": at(0.0), "trials": trials}

"""The verb that writes the page of finished stages anew: report."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts, words
from potstill.api.results import Result
from potstill.api.tables import Part, Table
from potstill.api.verb import built, one_process, verb
from potstill.errors import RunError
from potstill.evaluation.shipping import Goal
from potstill.report import write_report
from potstill.report.language import translator
from potstill.report.read import read_run
from potstill.stages.recipe import GoalConfig

SUMMARY = "summary.json"


@dataclass(frozen=True, repr=False, eq=False)
class Reports(Result):
    """The pages that were written, with what each stage ships."""

    def parts(self) -> Iterator[Part]:
        """Yield a table of what is shipped, and the pages."""
        rows = tuple(_row(one) for one in self.summary["reports"] if one["ship"])
        if rows:
            yield Table(("folder", "file", "accuracy, %", "95 % interval", "size", "ms/image", "target"), rows)
        for one in self.summary["reports"]:
            yield f"Report: {one['report']}"


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    ship = one["ship"]
    target = "" if ship["target"] is None else "met" if ship["target"]["met"] else "not met"
    latency = "" if ship["latency_ms"] is None else f"{ship['latency_ms']:.3f}"
    interval = "{:.2f} to {:.2f}".format(*ship["interval"])
    return (
        one["folder"],
        ship["file"],
        f"{ship['accuracy']:.2f}",
        interval,
        words.file_size(ship["bytes"]),
        latency,
        target,
    )


@verb
@one_process
def report(
    runs: str | Path | Sequence[str | Path],
    *,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    max_bytes: str | int | None = None,
    max_latency: str | float | None = None,
    lang: str = "en",
    open: bool = False,
) -> Reports:
    """Write report.html of finished stages anew, and return what each of them ships.

    Args:
        runs: folders of runs or stages.
        min_accuracy, max_drop, max_bytes, max_latency: what the shipped file must reach (percent, points below the
            teacher) and may cost (300kB, 2ms): the summary and the page then state whether it does.
        lang: language of the pages, "en" or "ko"; what has no translation stays English.
        open: show the pages in the browser.
    """
    asked = {"min_accuracy": min_accuracy, "max_drop": max_drop, "max_bytes": max_bytes, "max_latency": max_latency}
    goal = built(GoalConfig, {name: value for name, value in asked.items() if value is not None}).goal
    translator(lang)  # refuses an unknown language
    folders = [Path(one) for one in ([runs] if isinstance(runs, str | Path) else runs)]
    found = [read_run(folder).summary for folder in folders]  # all are there before one is written
    reports = []
    for folder, summary in zip(folders, found, strict=True):
        if goal:
            _judge(folder, summary, goal)
        page = write_report(folder, language=lang)
        if open:
            webbrowser.open(page.resolve().as_uri())
        reports.append({"folder": str(folder), "report": str(page), "ship": summary.get("ship")})
    return Reports({"reports": reports})


def _judge(folder: Path, summary: dict[str, Any], goal: Goal) -> None:
    """Judge what a stage ships by another goal, and write it into its summary."""
    ship = summary.get("ship")
    if ship is None:
        raise RunError(f"{folder} ships no file, so there is nothing that could meet a target.")
    reference = ship["reference"] or {}
    ship["target"] = goal.judged(ship, reference.get("accuracy"))
    artifacts.write_json(folder / SUMMARY, summary)
    artifacts.update(folder / SUMMARY)

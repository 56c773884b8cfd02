"""What a figure must reach, and where and when it was measured: the same for every benchmark."""

from __future__ import annotations

import datetime
import functools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import runtime
from potstill._version import __version__
from potstill.stages.summary import machine, versions


@dataclass(frozen=True)
class Bar:
    """What a figure must reach: at least, or at most, `value`. text: what the figure is. percent: shown as such."""

    value: float
    at_most: bool
    text: str
    percent: bool = False

    def judge(self, figure: float | None) -> dict[str, Any]:
        """Return the bar beside what was measured, as JSON; None: not measured here."""
        met = None if figure is None else figure <= self.value if self.at_most else figure >= self.value
        bound = "at most" if self.at_most else "at least"
        return {
            "measured": self._shown(figure),
            "bar": f"{bound} {self._shown(self.value)}",
            "verdict": {True: "met", False: "missed", None: "not measured"}[met],
            "what": self.text,
        }

    def _shown(self, figure: float | None) -> str:
        if figure is None:
            return "-"
        return f"{100 * figure:.1f} %" if self.percent else f"{figure:.2f}"


def judge(bars: Mapping[str, Bar], figures: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """Return every bar beside its figure."""
    return {name: bar.judge(figures[name]) for name, bar in bars.items()}


def table(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what `judge` returned as a Markdown table."""
    lines = ["| figure | what it is | measured | bar | |", "|---|---|---:|---:|---|"]
    lines += [
        f"| `{name}` | {bar['what']} | {bar['measured']} | {bar['bar']} | {bar['verdict']} |"
        for name, bar in judged.items()
    ]
    return "\n".join(lines)


def as_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured with the figures on top: by name, then their bars, then how they came about."""
    details = {name: value for name, value in found.items() if name not in ("figures", "bars")}
    return {**found["figures"], "bars": found["bars"], "details": details}


def provenance(threads: int) -> dict[str, Any]:
    """Return machine, versions, load, date and commit: what figures of speed depend on. threads: that were used."""
    return {
        "machine": {**machine(), "threads": threads},
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(),
        "potstill": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }


def where(found: Mapping[str, Any]) -> str:
    """Return in words what `provenance` returned."""
    machine, versions = found["machine"], found["versions"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, device {machine['device']}, load "
        f"{found['load']} at the end; {told}; {found['date']}, commit {(found['commit'] or 'unknown')[:10]}."
    )


def _commit() -> str | None:
    """Return the commit of the checkout that runs, None where it is no checkout."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def in_a_process(*, ours: bool) -> dict[str, str]:
    """Return the variables of a process of its own, which finds these modules (`python -m peers.NAME`).

    ours: with those that the `potstill` command sets, which others run without.
    """
    others = {key: value for key, value in os.environ.items() if key not in runtime.VARIABLES}
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**others, "PYTHONPATH": os.pathsep.join(paths), **(_of_the_command() if ours else {})}


@functools.cache
def _of_the_command() -> dict[str, str]:
    """Return what the `potstill` command chooses before the first process keeps the cores busy."""
    return runtime.environment({})

"""Reads the files of a run folder for the report; files that a run did not write are treated as empty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import names
from potstill.artifacts import read_json, read_object
from potstill.errors import RunError

FOLDERS = {"teacher": ("teacher",), "control": ("control",), "student": ("distill", "trained", "round-*")}
"""By the colour of a model, the folders of its curves: runs, quantization-aware training, rounds of pruning."""

Row = dict[str, Any]
Curves = dict[str, list[list[Row]]]  # model -> one list of epochs per seed


@dataclass(frozen=True)
class Run:
    """A folder of a stage: `summary.json`, the curves of its models and of its comparisons' models, its examples.

    tuned: the epochs of fine-tuning.
    """

    folder: Path
    summary: dict[str, Any]
    curves: Curves
    comparisons: tuple[Curves, ...]
    examples: dict[str, Any] | None
    tuned: list[Row]


def read_run(folder: Path) -> Run:
    """Read a run folder; raise `RunError` if it has no summary."""
    file = folder / "summary.json"
    if not file.is_file():
        raise RunError(
            f"{folder} holds no summary.json, so there is nothing to report: the run is unfinished, or this is not "
            "a run folder. Run the command that created it again; it resumes where it stopped."
        )
    summary = read_object(file)
    if not isinstance(summary.get("kind"), str):
        raise RunError(f"{file} is no summary of potstill, or was edited: it has no kind. Run the command again.")
    examples = folder / "examples.json"
    compared = [_comparison(folder / "comparisons", one["name"]) for one in summary.get("comparisons", [])]
    return Run(
        folder=folder,
        summary=summary,
        curves=read_curves(folder),
        comparisons=tuple(read_curves(one) for one in compared),
        examples=read_json(examples) if examples.is_file() else None,
        tuned=read_rows(folder / "tuned" / "metrics.jsonl"),
    )


def _comparison(parent: Path, name: str) -> Path:
    """Return the folder of a comparison: its name, or the name in lower case with hyphens for spaces."""
    folder = names.inside(parent, name, origin=parent.parent / "summary.json")
    return folder if folder.is_dir() else parent / "-".join(name.lower().split())


def read_curves(folder: Path) -> Curves:
    """Read the metrics of the trained models under `folder`, in the order teacher, control, student."""
    curves = {
        name: [rows for pattern in below for rows in _metrics(folder, pattern)] for name, below in FOLDERS.items()
    }
    return {name: seeds for name, seeds in curves.items() if seeds}


def _metrics(parent: Path, pattern: str) -> list[list[Row]]:
    files = []
    for folder in sorted(parent.glob(pattern))[-1:]:  # of several rounds the last
        below = sorted(folder.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
        files += [one / "metrics.jsonl" for one in (folder, *below)]
    return [rows for rows in map(read_rows, files) if rows]


def read_rows(file: Path) -> list[Row]:
    """Return the epochs of a metrics.jsonl; an empty list if there is no such file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

"""Experiment trackers: each gets one row of figures per epoch, under the name of the training's folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from potstill import distributed, tracking

LOGS = "tensorboard"
PROJECT = "potstill"


class Training(Protocol):
    """One training as a tracker knows it."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Record the figures of a step."""

    def close(self) -> None:
        """Write what is buffered."""


def opened(folder: Path, first_step: int) -> Training | None:
    """Return the chosen tracker's record of the training in a folder, None without a tracker.

    first_step: at which it starts or is resumed; TensorBoard hides what an interrupted call recorded after it.
    """
    chosen = tracking.chosen()
    if chosen is None or not distributed.is_main():
        return None
    name = _name(folder)
    return _TensorBoard(name, first_step) if chosen == "tensorboard" else _Trackio(name)


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a row of metrics.jsonl: "train/loss", "validation/accuracy", "learning_rate"."""
    flat = {"learning_rate": float(row["learning_rate"])}
    for split in ("train", "validation"):
        flat |= {f"{split}/{name}": float(value) for name, value in row.get(split, {}).items()}
    return flat


def _name(folder: Path) -> str:
    """Return "runs/demo/distill/seed-0", below the working directory or else below the root."""
    absolute = folder.absolute()
    base = Path.cwd() if absolute.is_relative_to(Path.cwd()) else Path(absolute.anchor)
    return absolute.relative_to(base).as_posix()


class _TensorBoard:
    def __init__(self, name: str, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(Path(LOGS) / name), purge_step=first_step or None)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """trackio prints what it does on standard output, which belongs to the figures of a command."""

    def __init__(self, name: str) -> None:
        import trackio  # pyright: ignore[reportMissingImports]  (an extra)

        self._trackio = trackio
        with contextlib.redirect_stdout(sys.stderr):
            trackio.init(project=PROJECT, name=name, resume="allow", auto_log_gpu=False, auto_log_cpu=False)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(figures), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()

"""The trainings of several stages at once: those of all of them are collected first, and share the workers.

One stage after the other would leave workers idle at the end of each: with three seeds on two workers a quarter of the
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from potstill.scheduling import Cell, Scheduler, carried_out

Work = Callable[[Scheduler], Any]


class Gathered(Exception):
    """A stage got as far as its trainings, which are collected."""


class Gathering:
    """Collects cells in place of carrying them out, and ends the stage that waits for them. count: of the workers."""

    parallel = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.cells: list[Cell] = []

    def submit(self, cell: Cell) -> None:
        """Collect a cell."""
        self.cells.append(cell)

    def wait(self, title: str) -> list[Any]:
        """Raise `Gathered`."""
        raise Gathered(title)


def train_together(works: Sequence[Work], scheduler: Scheduler, title: str) -> None:
    """Carry out the trainings of stages which do not need each other. title: of the progress bar.

    A stage is begun, ends where it would wait for its trainings, and is begun again after those of all stages are
    finished, which it then reads; so a stage whose second trainings need the first ones is begun three times. Each
    stage resumes as after an interruption. Raises the `UserError` of a stage or of a training.
    """
    while True:
        gathering = Gathering(scheduler.count)
        for work in works:
            try:
                work(gathering)
            except Gathered:
                continue
        if not gathering.cells:
            return
        carried_out(scheduler, gathering.cells, title)

"""What is scheduled, what schedules it, and the scheduler of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from potstill import progress


class Cell(Protocol):
    """Work in a folder, as plain data that can be pickled: finished before, or started, or resumed."""

    @property
    def place(self) -> Path:
        """The folder, absolute, on a file system that all machines share; it has the done marker."""
        ...

    def carry_out(self) -> Any:
        """Do the work, unless it is finished; return its result."""
        ...


class Scheduler(Protocol):
    """Carries out cells in any order. parallel: whether other processes do, with one thread each; count: at a time."""

    @property
    def parallel(self) -> bool: ...

    @property
    def count(self) -> int: ...

    def submit(self, cell: Cell) -> None:
        """Take a cell, which may begin at once."""
        ...

    def wait(self, title: str) -> list[Any]:
        """Return the results of all submitted cells, in their order; `title` is that of the progress bar.

        Raises the `UserError` of a cell that failed, and `RunError` if its process was killed.
        """
        ...


class Serial:
    """Carries out cells in this process, one after the other."""

    parallel, count = False, 1

    def __init__(self) -> None:
        self._cells: list[Cell] = []

    def submit(self, cell: Cell) -> None:
        """Take a cell."""
        self._cells.append(cell)

    def wait(self, title: str) -> list[Any]:
        """Carry out the cells, and return their results."""
        cells, self._cells = self._cells, []
        results = []
        with progress.task(title, total=len(cells)) as task:
            for cell in cells:
                results.append(cell.carry_out())
                task.advance(text="/".join(cell.place.parts[-3:]))
        return results

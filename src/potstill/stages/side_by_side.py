"""The independent trainings of a stage, one after the other or in other processes (`potstill.scheduling`).

Another process carries out one training by replaying the stage: what is finished is read, and the first list of
trainings that has the wanted one ends the replay. So there is one code for both, and nothing to send but settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from potstill import artifacts, progress
from potstill.scheduling import Cell, Scheduler, Serial, carried_out
from potstill.training.autotune import ExecutionPlan, decided

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):
    """One training. place: its folder; work: trains it or reads what is finished; plan: how it is to be computed."""

    place: Path
    work: Callable[[], T]
    plan: Callable[[], ExecutionPlan]


@dataclass(frozen=True)
class SideBySide:
    """Carries out parts. cell: from folder and plan to the cell that another process carries out."""

    scheduler: Scheduler = field(default_factory=Serial)
    cell: Callable[[Path, ExecutionPlan], Cell] | None = None

    def all(self, parts: Sequence[Part[T]], title: str = "") -> list[T]:
        """Return the results of parts, in their order. title: of a progress bar over all of them."""
        if self.scheduler.parallel and self.cell is not None:
            missing = [part for part in parts if artifacts.finished(part.place) is None]
            cells = [self.cell(part.place, part.plan()) for part in missing]
            if cells:
                carried_out(self.scheduler, cells, title or "Training side by side")
            return [part.work() for part in parts]
        results = []
        with progress.task(title, total=len(parts)) if title else progress.no_task() as task:
            for part in parts:
                results.append(part.work())
                task.advance(text=f"{part.place.parent.name}, {part.place.name}")
        return results


SERIAL = SideBySide()


class Reached(Exception):
    """The wanted part of a replay is finished."""


@dataclass(frozen=True)
class Only(SideBySide):
    """Carries out the part in the folder `target` and no other unfinished one."""

    target: Path = Path()

    def all(self, parts: Sequence[Part[T]], title: str = "") -> list[T]:
        """Raise `Reached` once the wanted part is finished; return the results of other parts, which are finished."""
        for part in parts:
            if part.place.absolute() == self.target:
                part.work()
                raise Reached
        return [part.work() for part in parts]


Replay = Callable[[str, Path, Only], Any]  # settings as JSON, folder of the stage


@dataclass(frozen=True)
class Replayed:
    """A cell: the part of a stage in the folder `target`. replay: of a module; settings: of the stage, as JSON."""

    replay: Replay
    settings: str
    folder: Path
    target: Path
    plan: ExecutionPlan

    @property
    def place(self) -> Path:
        """The folder of the part."""
        return self.target

    def carry_out(self) -> None:
        """Replay the stage up to the part, and carry that out."""
        try:
            with decided(self.plan):
                self.replay(self.settings, self.folder, Only(target=self.target))
        except Reached:
            return
        raise AssertionError(f"the stage in {self.folder} has no part {self.target}")


def side_by_side(scheduler: Scheduler | None, replay: Replay, settings: str, folder: Path) -> SideBySide:
    """Return what carries out the parts of the stage in `folder`."""
    if scheduler is None:
        return SideBySide()
    return SideBySide(
        scheduler, lambda place, plan: Replayed(replay, settings, folder.absolute(), place.absolute(), plan)
    )

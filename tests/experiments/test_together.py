"""The trainings of the stages of one step share the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import RunError
from potstill.scheduling import Scheduler, Serial, carried_out
from potstill.stages.experiment.together import Gathering, train_together


@dataclass(frozen=True)
class Training:
    place: Path

    def carry_out(self) -> None:
        (self.place / "done").touch()


class Counting(Serial):
    """Carries out cells in this process, and remembers how many it was given at a time."""

    parallel, count = True, 2

    def __init__(self) -> None:
        super().__init__()
        self.given: list[list[str]] = []

    def wait(self, title: str) -> list[Any]:
        self.given.append([cell.place.name for cell in self._cells])
        return super().wait(title)


@dataclass
class Stage:
    """Has rounds of trainings, each of which needs those before it."""

    folder: Path
    rounds: list[list[str]]
    begun: list[int] = field(default_factory=list)

    def __call__(self, scheduler: Scheduler) -> str:
        self.begun.append(scheduler.count)
        for names in self.rounds:
            places = [self.folder / name for name in names]
            for place in places:
                place.mkdir(exist_ok=True)
            missing = [Training(place) for place in places if not (place / "done").is_file()]
            if missing:
                carried_out(scheduler, missing, "")
        return "finished"


def test_trainings_of_all_stages_are_carried_out_at_once(tmp_path: Path) -> None:
    stages = [Stage(tmp_path, [["a0", "a1", "a2"]]), Stage(tmp_path, [["b0"], ["b1", "b2"]]), Stage(tmp_path, [])]
    scheduler = Counting()
    train_together(stages, scheduler, "Training")
    assert scheduler.given == [["a0", "a1", "a2", "b0"], ["b1", "b2"]]
    assert [stage.begun for stage in stages] == [[2, 2, 2]] * 3
    assert all(stage(Gathering(2)) == "finished" for stage in stages), "nothing is left to train"


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "a0").mkdir()
    Training(tmp_path / "a0").carry_out()
    scheduler = Counting()
    train_together([Stage(tmp_path, [["a0", "a1"]])], scheduler, "Training")
    assert scheduler.given == [["a1"]]


def test_a_mistake_in_a_stage_is_raised_before_any_training(tmp_path: Path) -> None:
    def refused(scheduler: Scheduler) -> None:
        raise RunError("no such teacher")

    scheduler = Counting()
    with pytest.raises(RunError, match="no such teacher"):
        train_together([Stage(tmp_path, [["a0"]]), refused], scheduler, "Training")
    assert scheduler.given == []

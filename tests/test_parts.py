"""How far a whole command is: the place of a part, the time left, and plain lines at most every ten seconds."""

from __future__ import annotations

import pytest

from potstill import display, progress
from potstill.progress import parts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test sets it."""
    now = [100.0]
    monkeypatch.setattr(parts.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_that_of_the_trainings_so_far(clock: list[float]) -> None:
    command = parts.Parts()
    command.announce([("data", 0), ("control", 1), ("student", 1), ("second student", 2), ("evaluation", 0)])
    assert command.place == "" and command.left(0.5) == ""
    command.enter("data")
    assert command.place == "1 of 5: " and command.left(0.5) == ""
    command.enter("control")
    clock[0] += 60
    assert command.left(0.5) == "about 7 min of training left"  # half of 1 took a minute, 3.5 remain
    clock[0] += 60
    command.enter("student")
    assert command.place == "3 of 5: " and command.left(0.0) == "about 6 min of training left"
    clock[0] += 120
    command.enter("control")  # is over
    assert command.place == "3 of 5: "
    command.enter("second student")
    clock[0] += 216
    assert command.left(0.9) == "about 24 s of training left"  # 456 s for 3.8, of 4


def test_parts_of_an_earlier_call_do_not_count(clock: list[float]) -> None:
    command = parts.Parts()
    command.announce([("control", 1), ("student", 1)])
    command.enter("control")
    clock[0] += 0.01
    command.enter("student")
    clock[0] += 30
    assert command.left(0.5) == "about 30 s of training left"


def test_a_plan_knows_the_time_left(clock: list[float]) -> None:
    with parts.counted():
        parts.announce("look", "search")
        parts.end_in(1200)
        parts.enter("look")
        clock[0] += 60
        assert parts.current().left(0.0) == "about 19 min left"
        clock[0] += 2000
        assert parts.current().left(0.0) == "longer than planned"
        with parts.counted():  # a run inside the search
            parts.announce("data", "teacher", "evaluation")
            parts.enter("teacher")
            assert parts.current().place == "1 of 2: "
    assert parts.current().place == ""


def test_a_task_shows_the_place_and_the_time_left() -> None:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch, parts.counted(), progress.use(display.LineDisplay(lines.append)):
        patch.setattr(display, "SHORT_SECONDS", -1.0)
        parts.announce("data", ("control", 1.0))
        parts.enter("control")
        with progress.task("Training control, seed 0", 4) as task:
            with progress.task("Decoding", 2):
                pass
            task.advance(2, text="loss 0.3")
    assert len(lines) == 1
    assert lines[0].startswith("2 of 2: Training control, seed 0: 2 of 4 in ")
    assert ", loss 0.3, about " in lines[0] and lines[0].endswith(" s of training left")


def test_lines_come_at_most_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    shown = display.LineDisplay(lines.append)
    with shown.task("Searching", 30) as outer:
        for _ in range(30):
            with shown.task("Training", 1) as inner:
                now[0] += 2
                inner.advance()
            outer.advance()
    assert len(lines) == 5 + 1 and lines[-1] == "Searching: 30 of 30 in 60.0 s"

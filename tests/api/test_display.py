"""Who shows notes and progress when Python calls: logging where it is configured, lines on standard error elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import potstill
from potstill import display, progress
from potstill.api.verb import verb


@verb
def work() -> str:
    """Say something twice, and count."""
    progress.note("Something was ignored.")
    progress.note("Something was ignored.")
    with progress.task("Counting", 3) as task:
        task.advance(2)
        task.advance(1, text="loss 0.5")
    return "done"


@pytest.fixture(autouse=True)
def _nobody_shows() -> Iterator[None]:
    """Take away the display of the tests, and make tasks long enough to be shown."""
    token = progress._display.set(None)
    try:
        yield
    finally:
        progress._display.reset(token)
        potstill.set_verbosity("normal")


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that never touched logging: pytest's handlers sit on every logger that it knows."""
    monkeypatch.setattr(progress, "logger", logging.Logger("potstill"))
    monkeypatch.setattr(display, "SHORT_SECONDS", 0.0)


@pytest.mark.usefixtures("unconfigured")
def test_lines_on_standard_error_and_nothing_stays(capsys: pytest.CaptureFixture) -> None:
    assert work() == "done"
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first == "Something was ignored." and second.startswith("Counting: 3 of 3 in 0.0 s, loss 0.5") and not out
    logger = progress.logger
    assert not logger.handlers and logger.level == logging.NOTSET and not progress.installed()
    work()
    assert capsys.readouterr().err.count("Something was ignored.") == 1  # a new call is told anew


@pytest.mark.usefixtures("unconfigured")
def test_quiet(capsys: pytest.CaptureFixture) -> None:
    potstill.set_verbosity("quiet")
    work()
    potstill.set_verbosity("normal")
    progress.logger.setLevel(logging.WARNING)
    work()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(potstill.UserError, match="no verbosity 'loud'. Choose one of quiet, normal"):
        potstill.set_verbosity("loud")  # type: ignore[arg-type]


def test_configured_logging_gets_records_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        work()
    assert "Something was ignored." in [record.message for record in caplog.records if record.name == "potstill"]
    assert capsys.readouterr() == ("", "")


def test_who_shows_already_is_left_alone(capsys: pytest.CaptureFixture) -> None:
    shown = progress.Display()
    with progress.use(shown):
        work()
    assert shown.notes == ["Something was ignored."] and capsys.readouterr().err == ""


@pytest.mark.usefixtures("unconfigured")
def test_a_long_task_writes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 12.0, 12.0, 12.0, 30.0, 30.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    with display.LineDisplay(lines.append).task("Training", 100) as task:
        task.advance(30)
        task.advance(10)
    assert lines == ["Training: 40 of 100 in 12.0 s", "Training: 40 of 100 in 30.0 s"]


def test_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.use(display.LiveDisplay()):
        with progress.task("Outer", 2) as outer, progress.task("Inner", 2) as inner:
            outer.advance()
            inner.advance(text="loss 0.5")
        progress.note("A path like [/x] is no markup.")
    err = capsys.readouterr().err
    assert "Outer" in err and "A path like [/x] is no markup." in err


def test_no_color(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    shown = []
    for colourless in (False, True):
        if colourless:
            monkeypatch.setenv("NO_COLOR", "1")
        display.LiveDisplay().note("Something was ignored.")
        shown.append(capsys.readouterr().err)
    assert shown == ["\x1b[33mnote: Something was ignored.\x1b[0m\n", "note: Something was ignored.\n"]

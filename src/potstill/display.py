"""Who shows notes and progress: a live display on terminals and in notebooks, lines elsewhere.

The command line installs a display of its own. From Python every verb shows what it does:

- where the program configured `logging`, as INFO records of the logger "potstill", and nothing else is printed;
- else with live bars where standard error is a terminal, or in a notebook with ipywidgets;
- else as lines on standard error, by a handler of that logger that stays only as long as the verb works.

`set_verbosity("quiet")` and `logging.getLogger("potstill").setLevel("WARNING")` switch all of it off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

from potstill import distributed, progress
from potstill.errors import UserError
from potstill.plain_text import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 10.0
"""How often a task that takes long writes a line."""
SHORT_SECONDS = 1.0
"""A task that took less writes none."""

Verbosity = Literal["quiet", "normal"]
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Show notes and progress ("normal", the default) or not ("quiet"); errors are raised either way."""
    global _verbosity
    if verbosity not in get_args(Verbosity):
        raise UserError(f"There is no verbosity {verbosity!r}. Choose one of {', '.join(get_args(Verbosity))}.")
    _verbosity = verbosity


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show notes and progress inside the block, unless whoever called shows them already."""
    if progress.installed():
        yield
        return
    with _handled() as by_logging, progress.use(_display(by_logging)):
        yield


def quiet() -> bool:
    """Whether notes and progress are switched off."""
    level = progress.logger.level
    return _verbosity == "quiet" or not distributed.is_main() or level > logging.INFO


def _display(by_logging: bool) -> progress.Display:
    if quiet():
        return progress.Display()
    if by_logging:
        return LineDisplay(progress.logger.info)
    return LiveDisplay()


@contextlib.contextmanager
def _handled() -> Iterator[bool]:
    """Yield whether lines go through `logging`, for the block with a handler of ours where there is none."""
    logger = progress.logger
    if quiet() or logger.hasHandlers():
        yield True
        return
    if _live():
        yield False
        return
    handler, before = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(before or logging.INFO)
    try:
        yield True
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _live() -> bool:
    """Whether bars can be drawn here: on a terminal, or in a notebook with ipywidgets."""
    if "ipykernel" in sys.modules:
        return importlib.util.find_spec("ipywidgets") is not None
    return sys.stderr is not None and sys.stderr.isatty()


class LineDisplay(progress.Display):
    """Notes as lines, and progress as lines: at the end of what took a second, and every ten seconds before."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._lines = _Pace(write)

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[progress.Task]:
        with self._lines.task(title, total, done) as task:
            yield task

    def starting(self, title: str) -> contextlib.AbstractContextManager[object]:
        self._lines.write(title)
        return contextlib.nullcontext()

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
            self._lines.write(visible(sentence))


class _Pace:
    """Writes the lines of nested tasks, at most one in ten seconds and one at the end of each outer task."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self._open = 0
        self._last = 0.0

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int) -> Iterator[progress.Task]:
        task = _Lines(title, total, done, self)
        if not self._open:
            self._last = task.began
        self._open += 1
        try:
            yield task
        finally:
            self._open -= 1
        if not self._open and time.monotonic() - task.began > SHORT_SECONDS:
            self.show(task)

    def show_if_due(self, task: _Lines) -> None:
        if time.monotonic() - self._last > LINE_SECONDS:
            self.show(task)

    def show(self, task: _Lines) -> None:
        self._last = time.monotonic()
        self.write(visible(task.text(self._last)))


class _Lines(progress.Task):
    def __init__(self, title: str, total: int, done: int, pace: _Pace) -> None:
        self._title, self._total, self._done, self._pace = title, total, done, pace
        self.began = time.monotonic()
        self._beside = ""

    def advance(self, steps: int = 1, text: str = "") -> None:
        self._done, self._beside = self._done + steps, text or self._beside
        self._pace.show_if_due(self)

    def text(self, now: float) -> str:
        """Return how far it is."""
        beside = f", {self._beside}" if self._beside else ""
        return f"{self._title}: {self._done:,} of {self._total:,} in {now - self.began:.1f} s{beside}"


class LiveDisplay(progress.Display):
    """Bars and notes on standard error, and lines where that is no terminal; standard output stays clean for figures.

    `NO_COLOR` and `TERM=dumb` are respected by the console.
    """

    def __init__(self) -> None:
        super().__init__()
        from potstill.console import PlainConsole

        self._console = PlainConsole(stderr=True)
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._lines = _Pace(lambda line: self._console.print(line, soft_wrap=True))
        self._bars: Progress | None = None

    def starting(self, title: str) -> contextlib.AbstractContextManager[object]:
        if self._live:
            return self._console.status(title)
        self._lines.write(title)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[progress.Task]:
        if not self._live:  # a log file: bars would be noise
            with self._lines.task(title, total, done) as task:
                yield task
        elif self._bars is not None:  # a task inside a task
            with self._counted(self._bars, title, total, done) as task:
                yield task
        else:
            with self._drawn() as bars, self._counted(bars, title, total, done) as task:
                yield task

    @contextlib.contextmanager
    def _drawn(self) -> Iterator[Progress]:
        from rich import progress as rich

        columns = (
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[text]}", markup=False),
        )
        with rich.Progress(*columns, console=self._console, transient=True) as bars:
            self._bars = bars
            try:
                yield bars
            finally:
                self._bars = None

    @contextlib.contextmanager
    def _counted(self, bars: Progress, title: str, total: int, done: int) -> Iterator[progress.Task]:
        number = bars.add_task(visible(title), total=total, completed=done, text="")
        yield _Bar(bars, number)
        bars.remove_task(number)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
            self._console.print(f"note: {sentence}", style="yellow", soft_wrap=True)


class _Bar(progress.Task):
    def __init__(self, bars: Progress, number: TaskID) -> None:
        self._bars, self._number = bars, number

    def advance(self, steps: int = 1, text: str = "") -> None:
        self._bars.advance(self._number, steps)
        if text:
            self._bars.update(self._number, text=visible(text))

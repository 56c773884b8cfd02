"""Progress bars and notes of long commands.

Stages call `note` (a sentence that is shown once: a fallback, an ignored setting, a skipped image) and `task` (work
with a known number of steps). The command line installs a live display with `use`; without one, notes go to `logging`
and there is no progress bar. A stage collects the notes of its summary with `recorded`, so that notes of one run never
appear in another's summary.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Iterator

from potstill.progress import parts

logger = logging.getLogger("potstill")

LEFT_SECONDS = 2.0
"""How often the time left is computed anew."""


class Task:
    """Work in progress. `advance` is cheap enough to be called in every step."""

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Add `steps` finished steps; `text` (such as "loss 0.31") replaces the text beside the bar."""


class Display:
    """Collects and logs notes without showing progress; the base class of the live displays."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task of `total` steps, of which `done` are already finished."""
        yield Task()

    def starting(self, title: str) -> contextlib.AbstractContextManager[object]:
        """Show at once that a command has begun, for the seconds of its imports."""
        return contextlib.nullcontext()

    def note(self, sentence: str) -> None:
        """Log a sentence once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            logger.info(sentence)


_display: contextvars.ContextVar[Display | None] = contextvars.ContextVar("potstill_display", default=None)
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("potstill_inside_a_task", default=False)
_records: contextvars.ContextVar[tuple[list[str], ...]] = contextvars.ContextVar("potstill_records", default=())


def display() -> Display:
    """Return the installed display, or a new one that only logs."""
    return _display.get() or Display()


def installed() -> bool:
    """Return whether a display is installed."""
    return _display.get() is not None


@contextlib.contextmanager
def use(shown: Display) -> Iterator[Display]:
    """Install `shown` for the duration of a command."""
    token = _display.set(shown)
    try:
        yield shown
    finally:
        _display.reset(token)


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Yield a list that collects the notes of the block, each once; without a display, they are also logged once."""
    notes: list[str] = []
    token = _records.set((*_records.get(), notes))
    try:
        with use(display()):
            yield notes
    finally:
        _records.reset(token)


def note(sentence: str) -> None:
    """Show a complete sentence to the user, once."""
    for notes in _records.get():
        if sentence not in notes:
            notes.append(sentence)
    display().note(sentence)


def no_task() -> contextlib.AbstractContextManager[Task]:
    """Open a task that is not shown."""
    return contextlib.nullcontext(Task())


def starting(title: str) -> contextlib.AbstractContextManager[object]:
    """Show `title` at once, for seconds in which nothing can be counted; nothing if torch is imported already."""
    return contextlib.nullcontext() if "torch" in sys.modules else display().starting(title)


@contextlib.contextmanager
def task(title: str, total: int, done: int = 0) -> Iterator[Task]:
    """Open a task of `total` steps, of which `done` are already finished (in a resumed run).

    An outermost task shows how far the whole command is too.
    """
    if _inside.get():
        with display().task(title, total, done) as inner:
            yield inner
        return
    whole = parts.current()
    token = _inside.set(True)
    try:
        with display().task(f"{whole.place}{title}", total, done) as outer:
            yield _OfCommand(outer, whole, total, done)
    finally:
        _inside.reset(token)


class _OfCommand(Task):
    """A task that shows the time left of the whole command beside its own text."""

    def __init__(self, task: Task, whole: parts.Parts, total: int, done: int) -> None:
        self._task, self._whole, self._total = task, whole, total
        self._done, self._first, self._text, self._shown = done, done, "", time.monotonic()

    def advance(self, steps: int = 1, text: str = "") -> None:
        self._done, self._text = self._done + steps, text or self._text
        left = ""
        if text or time.monotonic() - self._shown > LEFT_SECONDS:
            self._shown = time.monotonic()
            left = self._whole.left((self._done - self._first) / max(self._total - self._first, 1))
        self._task.advance(steps, ", ".join(filter(None, (self._text, left))) if left else text)

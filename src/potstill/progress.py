"""What a long command tells the person who waits.

Stages call `note` (a sentence that is shown once: a fallback taken, a setting ignored, an image skipped) and
`task` (something with a known number of steps). Who shows them is decided by whoever started the command:
the command line installs a live display with `use`; a Python caller gets notes through `logging` and no bar.
What a stage puts into its summary it collects with `recorded`, so that notes of one run never reach another's.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator

logger = logging.getLogger("potstill")


class Task:
    """A piece of work under way. `advance` is cheap enough for every step."""

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Tell that `steps` more are done; `text` (such as "loss 0.31") replaces what stands beside the bar."""


class Display:
    """Shows nothing but keeps the notes; the base of the command line's live display."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        yield Task()

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
            logger.info(sentence)


_display: contextvars.ContextVar[Display | None] = contextvars.ContextVar("potstill_display", default=None)
_records: contextvars.ContextVar[tuple[list[str], ...]] = contextvars.ContextVar("potstill_records", default=())


def display() -> Display:
    """Return the display in use; a new one that only logs where none was installed."""
    return _display.get() or Display()


def installed() -> bool:
    """Whether somebody shows notes and progress already."""
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
    """Yield a list that collects every note of the block, each once; without a display, they are also shown once."""
    notes: list[str] = []
    token = _records.set((*_records.get(), notes))
    try:
        with use(display()):
            yield notes
    finally:
        _records.reset(token)


def note(sentence: str) -> None:
    """Tell the user something once, in a complete sentence."""
    for notes in _records.get():
        if sentence not in notes:
            notes.append(sentence)
    display().note(sentence)


def task(title: str, total: int, done: int = 0) -> contextlib.AbstractContextManager[Task]:
    """Open a task of `total` steps, of which `done` were done earlier (a resumed run)."""
    return display().task(title, total, done)

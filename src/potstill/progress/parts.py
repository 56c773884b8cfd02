"""How far a whole command is: its parts in their order, and the time that those which train will still take.

A stage announces its parts once (`announce`); the first announcement of a command counts, so that a run inside a search
does not count anew. `enter` begins a part. The tasks of `progress` show "5 of 9" before their title, and the time left.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator, Sequence

REUSED_SECONDS = 0.2
"""A part that took less was finished before, and says nothing of the speed."""


class Parts:
    """The parts of one command. weights: relative times, 0 for parts that are not counted in the time left."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._weights: list[float] = []
        self._place = -1
        self._began = 0.0
        self._done = self._spent = 0.0
        self._until: float | None = None

    def announce(self, parts: Sequence[tuple[str, float]]) -> None:
        """Take the parts of the command, unless there are some already."""
        if not self._names:
            self._names, self._weights = [name for name, _ in parts], [weight for _, weight in parts]

    def end_in(self, seconds: float) -> None:
        """Take the time left from a plan, for a command whose time is given."""
        self._until = time.monotonic() + seconds

    def enter(self, name: str) -> None:
        """Begin a part; names that were not announced, or come late, are parts of the present one."""
        place = self._names.index(name) if name in self._names else -1
        if place <= self._place:
            return
        self._leave()
        self._place, self._began = place, time.monotonic()

    def _leave(self) -> None:
        seconds = time.monotonic() - self._began
        if self._place >= 0 and self._weights[self._place] and seconds > REUSED_SECONDS:
            self._done, self._spent = self._done + self._weights[self._place], self._spent + seconds

    @property
    def place(self) -> str:
        """Return "5 of 9: ", or nothing."""
        return f"{self._place + 1} of {len(self._names)}: " if self._place >= 0 else ""

    def left(self, share: float) -> str:
        """Return "about 4 min of training left", or nothing where it is not known; share: of the part that is done."""
        if self._place < 0:
            return ""
        if self._until is not None:
            seconds = self._until - time.monotonic()
            return f"about {_rounded(seconds)} left" if seconds > 0 else "longer than planned"
        weight = self._weights[self._place]
        done = self._done + share * weight
        if not weight or share <= 0 and not self._done or not done:
            return ""
        speed = (self._spent + time.monotonic() - self._began) / done
        return f"about {_rounded(speed * (sum(self._weights[self._place :]) - share * weight))} of training left"


def _rounded(seconds: float) -> str:
    """Return a time without digits that nobody can know: "2 h 10 min", "4 min", "40 s"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_current: contextvars.ContextVar[Parts | None] = contextvars.ContextVar("potstill_parts", default=None)


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Count the parts of the outermost command that is carried out in the block."""
    if _current.get() is not None:
        yield
        return
    token = _current.set(Parts())
    try:
        yield
    finally:
        _current.reset(token)


def announce(*parts: str | tuple[str, float]) -> None:
    """Announce the parts of a command: names, with a weight where their time is to be estimated."""
    if (current := _current.get()) is not None:
        current.announce([(part, 0.0) if isinstance(part, str) else part for part in parts])


def enter(name: str) -> None:
    """Begin a part that was announced."""
    if (current := _current.get()) is not None:
        current.enter(name)


def end_in(seconds: float) -> None:
    """Announce the time that is left, where it is planned."""
    if (current := _current.get()) is not None:
        current.end_in(seconds)


def current() -> Parts:
    """Return the parts of the command in progress; none are announced where there is no command."""
    return _current.get() or Parts()

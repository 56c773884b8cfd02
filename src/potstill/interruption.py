"""Ctrl-C and SIGTERM: both raise `Interrupted`, but never within a training step.

A training defers them to the end of its step, saves its state, and then stops. A second signal stops at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_deferring = False
_pending: int | None = None
_raised: int | None = None


class Interrupted(KeyboardInterrupt):
    """The command is to stop. number: of the signal; saved: what was saved, as a sentence, or ""."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(saved)
        self.number, self.saved = number, saved


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending, _raised
    if _deferring and _pending is None:
        _pending = number
    else:
        _raised = number
        raise Interrupted(number)


def raised() -> int | None:
    """Return the number of the signal that stopped the block of `handled`, None without one.

    For errors of libraries: code in C that is interrupted may put an error of its own in the place of `Interrupted`.
    """
    return _raised


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Let both signals raise `Interrupted` in the block; for commands, in the main thread."""
    global _raised
    _raised = None
    with _installed(SIGNALS):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Keep signals back in the block; yield a function that returns the number of one that waits, or None.

    One that still waits at the end of the block is raised there. Outside the main thread nothing is kept back.
    """
    global _deferring, _pending
    if threading.current_thread() is not threading.main_thread() or _deferring:
        yield lambda: None
        return
    ours = [number for number in SIGNALS if signal.getsignal(number) in (_handle, signal.default_int_handler)]
    with _installed(ours):
        _deferring = True
        try:
            yield lambda: _pending
        except BaseException:
            _deferring, _pending = False, None
            raise
        _deferring, number, _pending = False, _pending, None
        if number is not None:
            raise Interrupted(number)


@contextlib.contextmanager
def _installed(numbers: tuple[signal.Signals, ...] | list[signal.Signals]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

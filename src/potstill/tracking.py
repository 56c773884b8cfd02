"""Which experiment tracker gets the metrics of every training, beside its metrics.jsonl.

A tracker changes no result and is no setting of a run: it is chosen for a process, and those that it starts, by
`potstill ... --track`, `set_tracking` or POTSTILL_TRACK.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Literal, get_args

from potstill.errors import UserError

Tracker = Literal["tensorboard", "trackio"]
VARIABLE = "POTSTILL_TRACK"


def set_tracking(tracker: Tracker | None) -> None:
    """Send the metrics of every epoch to "tensorboard" or "trackio" as well; None: to metrics.jsonl alone.

    TensorBoard's files lie under `tensorboard/` in the working directory; trackio keeps its own database on this
    machine. Raises `UserError` if there is no such tracker, or it is not installed.
    """
    if tracker is None:
        os.environ.pop(VARIABLE, None)
        return
    os.environ[VARIABLE] = checked(tracker)


@contextlib.contextmanager
def tracked(tracker: str | None) -> Iterator[None]:
    """Send metrics to a tracker inside the block. Raises `UserError` as `set_tracking`."""
    before = os.environ.get(VARIABLE)
    if tracker is not None:
        os.environ[VARIABLE] = checked(tracker)
    try:
        yield
    finally:
        if tracker is not None:
            os.environ.pop(VARIABLE, None) if before is None else os.environ.update({VARIABLE: before})


def chosen() -> Tracker | None:
    """Return the tracker of this process. Raises `UserError` as `set_tracking`."""
    name = os.environ.get(VARIABLE, "")
    return checked(name) if name else None


def checked(name: str) -> Tracker:
    """Return the name of an installed tracker."""
    for known in get_args(Tracker):
        if name == known:
            if importlib.util.find_spec(known) is None:
                raise UserError(f"{known} is not installed. Install it: pip install 'potstill[{known}]'")
            return known
    raise UserError(f"There is no tracker {name!r}. Choose one of {', '.join(get_args(Tracker))}.")

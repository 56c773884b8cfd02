"""The same search started several times, on one machine or on several: the later processes help the first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from potstill import progress
from potstill.artifacts import problems_of
from potstill.errors import RunError
from potstill.scheduling import Scheduler
from potstill.scheduling.joint import help_out
from potstill.stages.run_folder import check_free
from potstill.stages.run_lock import Locked, at_work, holds
from potstill.stages.shrink.jobs import Job
from potstill.stages.shrink.settings import ShrinkConfig

T = TypeVar("T")
MEETING_SECONDS = 1.0  # two that start at the same moment: one of them waits until the other has written its settings

_JOB = TypeAdapter(Job)


def together(config: ShrinkConfig, folder: Path, scheduler: Scheduler, search: Callable[[], T]) -> T:
    """Return what `search` does, after helping the process that works in the folder, while there is one.

    Raises `RunError` if that process searches with other settings.
    """
    while True:
        try:
            return search()
        except Locked:
            if holds(folder):  # a second search in this process
                raise
            _help(config, folder, scheduler)


def _help(config: ShrinkConfig, folder: Path, scheduler: Scheduler) -> None:
    time.sleep(MEETING_SECONDS)
    check_free(folder, config, "shrink")
    if holder := at_work(folder):
        progress.note(
            f"Process {holder['pid']} on {holder['host']} works in {folder}: this one helps with its trainings, and "
            "goes on from what is finished when that process ends."
        )
        count = help_out(scheduler, folder, lambda offer: read(offer, folder), lambda: at_work(folder) == holder)
        progress.note(f"Process {holder['pid']} has ended; this one finished {count} of its trainings.")


def read(offer: dict[str, Any], folder: Path) -> Job:
    """Return a training that is offered in a folder. Raises `RunError` for one that would write outside it."""
    try:
        job = _JOB.validate_python(offer)
    except ValidationError as error:
        raise RunError(f"{folder} offers what is no training ({problems_of(error)}).") from None
    outside = [path for path in (job.folder, job.stores) if not Path(path).resolve().is_relative_to(folder.resolve())]
    if outside:
        raise RunError(
            f"A training that is offered in {folder} lies in {outside[0]}. Start the command in the same working "
            "folder and with the same --out on all machines: they must see the run folder under the same path."
        )
    return job

"""The lock of a run folder: `.lock` names the process that works in it, so that no two of them do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import artifacts, distributed, progress
from potstill.errors import RunError
from potstill.scheduling.claims import STALE_SECONDS, Claim, holder_of, unwritable

LOCK = ".lock"
_held: dict[Path, Claim] = {}


class Locked(RunError):
    """Another process works in the folder."""


def entries(folder: Path) -> set[str]:
    """Return the names in a folder, without the lock and files of killed writers; none if there is no folder."""
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir() if entry.name != LOCK and not artifacts.is_abandoned(entry)}


def holds(folder: Path) -> bool:
    """Return whether this process holds the lock of a folder."""
    return folder.absolute() in _held


def at_work(folder: Path) -> dict[str, Any] | None:
    """Return the process that holds the lock of a folder: its pid and host; None if there is none."""
    return holder_of(folder / LOCK)


@contextlib.contextmanager
def locked(folder: Path, *, now: bool) -> Iterator[None]:
    """Hold the lock of a folder in the block, from its beginning or from the first file that is written there.

    now: False for a folder that is new, and is not to be made before there is something to write. With several
    processes rank 0 holds it. Raises `Locked` if another process does, or has filled the new folder meanwhile.
    """
    if not distributed.is_main():
        yield
        return
    before, taken = entries(folder), False

    def take() -> None:
        nonlocal taken
        _take(folder)
        taken = True
        if entries(folder) - before:
            raise Locked(f"Another process has just worked in {folder}. Run the same command again.")

    try:
        if now:
            _take(folder)
            taken = True
        with contextlib.nullcontext() if now else artifacts.before_first_write(folder, take):
            yield
    finally:
        if taken:  # not the lock of a call that this one was refused by
            _release(folder)


def _take(folder: Path) -> None:
    claim = Claim(folder / LOCK)
    try:
        holder = claim.take()
    except OSError as error:
        if not unwritable(error):
            raise
        return  # a folder that cannot be written: a finished run can still be read
    if holder is not None:
        raise Locked(_refused(folder, holder))
    if claim.left is not None:
        progress.display().note(f"Process {claim.left.get('pid')} left {folder} without finishing; resuming.")
    _held[folder.absolute()] = claim


def _release(folder: Path) -> None:
    if claim := _held.pop(folder.absolute(), None):
        claim.release()


def _refused(folder: Path, holder: dict[str, Any]) -> str:
    here = holder.get("host") == socket.gethostname()
    where = "" if here else f" on {holder.get('host')}"
    lost = f" If that process no longer runs, the folder is free {STALE_SECONDS:.0f} seconds after its end."
    return (
        f"Process {holder.get('pid')}{where} works in {folder}. Wait until it has finished, or choose another folder "
        f"with --out.{'' if here else lost}"
    )

"""The lock of a run folder: `.lock` names the process that works in it, so that no two of them do.

A lock is stale if its process no longer runs: no process of this machine has its number, or the one that has it
started at another time. The lock of another machine cannot be judged, so its message says what to remove.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import artifacts, distributed, progress
from potstill.errors import RunError

LOCK = ".lock"
_held: set[Path] = set()


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


@contextlib.contextmanager
def locked(folder: Path, *, now: bool) -> Iterator[None]:
    """Hold the lock of a folder in the block, from its beginning or from the first file that is written there.

    now: False for a folder that is new, and is not to be made before there is something to write. With several
    processes rank 0 holds it. Raises `RunError` if another process does, or has filled the new folder meanwhile.
    """
    if not distributed.is_main():
        yield
        return
    before = entries(folder)

    def take() -> None:
        _take(folder)
        if entries(folder) - before:
            _release(folder)
            raise RunError(f"Another process has just worked in {folder}. Run the same command again.")

    try:
        if now:
            _take(folder)
        with contextlib.nullcontext() if now else artifacts.before_first_write(folder, take):
            yield
    finally:
        _release(folder)


def _take(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file, own = folder / LOCK, identity()
    try:
        with _alone_with(file) as handle:
            holder = _read(handle)
            if holder is not None and (holder != own or holds(folder)) and _runs(holder):
                raise Locked(_refused(folder, holder))
            if holder is not None:
                progress.display().note(f"Process {holder.get('pid')} left {folder} without finishing; resuming.")
            handle.truncate(0)
            handle.seek(0)
            handle.write(json.dumps(own))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return  # a folder that cannot be written: a finished run can still be read
    _held.add(folder.absolute())


def _release(folder: Path) -> None:
    if holds(folder):
        _held.discard(folder.absolute())
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()


@contextlib.contextmanager
def _alone_with(file: Path) -> Iterator[Any]:
    """Open a lock file while no other process reads or writes it."""
    while True:
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as handle:
            with contextlib.suppress(OSError):  # some network file systems have no such locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if file.exists() and os.fstat(handle.fileno()).st_ino == file.stat().st_ino:
                yield handle
                return  # closing the file releases it


def _read(handle: Any) -> dict[str, Any] | None:
    try:
        holder = json.loads(handle.read())
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else None


def identity() -> dict[str, Any]:
    """Return what identifies this process: its number, the time it started, and the machine."""
    return {"pid": os.getpid(), "started": started(os.getpid()), "host": socket.gethostname()}


def started(pid: int) -> str | None:
    """Return when a process of this machine started, in ticks since a named boot; None if it does not run."""
    if not Path("/proc/self/stat").exists():
        return "" if artifacts.is_alive(pid) else None
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if after_name[0] not in "ZX":  # not a process that has ended and waits for its parent
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {after_name[19]}"
    return None


def _runs(holder: dict[str, Any]) -> bool:
    return holder.get("host") != socket.gethostname() or started(holder["pid"]) == holder.get("started")


def _refused(folder: Path, holder: dict[str, Any]) -> str:
    here = holder.get("host") == socket.gethostname()
    where = "" if here else f" on {holder.get('host')}"
    advice = "" if here else f" If that process no longer runs, remove {folder / LOCK}."
    return (
        f"Process {holder['pid']}{where} works in {folder}. Wait until it has finished, or choose another folder with "
        f"--out.{advice}"
    )

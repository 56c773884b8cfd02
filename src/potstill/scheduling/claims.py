"""Who works where, on one machine or on several that share a file system: a file that names a process.

A claim is stale if its process no longer runs. For one of this machine that is known: no process has its number, or the
one that has it started at another time. One of another machine touches its file every few seconds; when it has not for
two minutes, it counts as gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

BEAT_SECONDS, STALE_SECONDS = 5.0, 120.0
_held: set[Path] = set()


class Claim:
    """The claim of this process to what a file stands for. left: the process that left it without finishing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.left: dict[str, Any] | None = None
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._thread is not None

    def take(self) -> dict[str, Any] | None:
        """Take it; return the process that has it instead, if one does. Raises `OSError` if it cannot be written."""
        own, place = identity(), self.file.absolute()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _alone_with(self.file) as handle:
            holder = _read(handle)
            if holder is not None and (holder != own or place in _held) and is_there(holder, self.file):
                return holder
            self.left = holder
            handle.truncate(0)
            handle.seek(0)
            handle.write(json.dumps(own))
            _held.add(place)
        self._released.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return None

    def release(self) -> None:
        """Give it back, if this process has it."""
        if self._thread is not None:
            self._released.set()
            self._thread.join()
            self._thread = None
            with contextlib.suppress(OSError):
                if self._is_ours():
                    self.file.unlink()
            _held.discard(self.file.absolute())

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if self._is_ours():
                    os.utime(self.file)

    def _is_ours(self) -> bool:
        """Return whether no process on another machine took it over, as after this one was stopped for minutes."""
        with self.file.open(encoding="utf-8") as handle:
            return _read(handle) == identity()


def holder_of(file: Path) -> dict[str, Any] | None:
    """Return the process that has the claim of a file; None if none has."""
    try:
        with file.open(encoding="utf-8") as handle:
            holder = _read(handle)
    except OSError:
        return None
    return holder if holder is not None and is_there(holder, file) else None


def is_there(holder: dict[str, Any], file: Path) -> bool:
    """Return whether the process that a claim names still works."""
    if holder.get("host") == socket.gethostname():
        return started(holder["pid"]) == holder.get("started")
    with contextlib.suppress(OSError):
        return _now(file.parent) - file.stat().st_mtime < STALE_SECONDS
    return True


def _now(folder: Path) -> float:
    """Return the time as the file system of a folder has it, which may differ from this machine's."""
    file = folder / f".now.{threading.get_ident()}-{os.getpid()}.tmp"
    try:
        file.touch()
        return file.stat().st_mtime
    finally:
        file.unlink(missing_ok=True)


def identity() -> dict[str, Any]:
    """Return what identifies this process: its number, the time it started, and the machine."""
    return {"pid": os.getpid(), "started": started(os.getpid()), "host": socket.gethostname()}


def started(pid: int) -> str | None:
    """Return when a process of this machine started, in ticks since a named boot; None if it does not run."""
    if not Path("/proc/self/stat").exists():
        return "" if psutil.pid_exists(pid) else None
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if after_name[0] not in "ZX":  # not a process that has ended and waits for its parent
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {after_name[19]}"
    return None


@contextlib.contextmanager
def _alone_with(file: Path) -> Iterator[Any]:
    """Open the file of a claim while no other process reads or writes it."""
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


def unwritable(error: OSError) -> bool:
    """Return whether an error says that a folder cannot be written to."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)

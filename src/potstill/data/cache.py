"""The cache: facts and pixels computed once from the user's files, which may be deleted at any time.

Everything under `cache_folder` can be recomputed from the images; a damaged or missing part is recomputed silently.
Its size is limited: whoever adds a large part calls `make_room`, which removes the least recently used ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.artifacts import write_text
from potstill.errors import ConfigError, UserError
from potstill.progress import note
from potstill.words import file_size, plural

Place = tuple[str, str]  # folder or archive, and a name in it
State = tuple[int, int]  # size in bytes, and modification time


def cache_folder() -> Path:
    """Return the cache folder: $POTSTILL_CACHE, or ~/.cache/potstill."""
    return Path(os.environ.get("POTSTILL_CACHE") or Path.home() / ".cache" / "potstill").expanduser()


LIMIT_GB = 20.0
LIMIT = "POTSTILL_CACHE_GB"  # environment variable with another limit
RECENT = 3600.0  # seconds; a part that was used since may be in use by another process


@dataclass(frozen=True)
class CacheEntry:
    """A part of the cache: decoded images of a data set, an unpacked archive, facts. used: seconds since the epoch."""

    path: Path
    bytes: int
    used: float


def entries() -> list[CacheEntry]:
    """Return all parts of the cache."""
    folder = cache_folder()
    parts = [path for kind in folder.iterdir() if kind.is_dir() for path in kind.iterdir()] if folder.is_dir() else []
    found = []
    for path in parts:
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            stat = path.stat()
            used = stat.st_mtime if path.is_dir() else max(stat.st_mtime, stat.st_atime)
            found.append(CacheEntry(path, size_of(path), used))
    return found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of everything in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it."""
    if path.is_dir():
        artifacts.remove(path)
    else:
        path.unlink(missing_ok=True)


def mark_used(path: Path) -> None:
    """Record that a part is in use."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            os.utime(path)
        else:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the time of a change tells its content


def limit_bytes() -> float:
    """Return the limit of the cache in bytes: $POTSTILL_CACHE_GB, or 20 GB. Raises `ConfigError`."""
    text = os.environ.get(LIMIT) or str(LIMIT_GB)
    try:
        return float(text) * 1e9
    except ValueError:
        raise ConfigError(f"{LIMIT} is {text!r}: set it to a number of gigabytes, such as {LIMIT_GB:g}.") from None


def make_room(keep: Path) -> None:
    """Remove the least recently used parts until the cache is within its limit, but not `keep`, with a note."""
    folder = cache_folder()
    if not keep.is_relative_to(folder):
        return
    artifacts.remove_abandoned(folder)
    parts = sorted(entries(), key=lambda entry: entry.used)
    left, removed = sum(entry.bytes for entry in parts) - limit_bytes(), []
    for entry in parts:
        if left > 0 and entry.path != keep and time.time() - entry.used > RECENT:
            remove(entry.path)
            removed.append(entry.bytes)
            left -= entry.bytes
    if removed:
        note(
            f"Removed {plural(len(removed), 'unused part')} of the cache ({file_size(sum(removed))}), which is limited "
            f"to {file_size(int(limit_bytes()))} ({LIMIT} changes it)."
        )


class Remembered:
    """JSON values by (folder or archive, name in it, size, modification time) of files.

    They are stored in one file per folder, so that they are found again from any list or level of the tree through
    which the images are read. version: of the code that computes the values; other versions are ignored.
    """

    def __init__(self, kind: str, version: int) -> None:
        self.kind, self.version = kind, version
        self._values: dict[str, dict[str, list[Any]]] = {}
        self._changed: set[str] = set()

    def get(self, place: Place, state: State) -> Any | None:
        """Return the value of a file, None if it is unknown or the file's (size, modification time) has changed."""
        folder, name = place
        if folder not in self._values:
            self._values[folder] = self._read(folder)
        size, time, value = self._values[folder].get(name, (None, None, None))
        return value if (size, time) == state else None

    def put(self, place: Place, state: State, value: Any) -> None:
        """Store a value for a file in this state; `get` must have been called for it before."""
        folder, name = place
        self._values[folder][name] = [*state, value]
        self._changed.add(folder)

    def forget(self, waiting: Mapping[str, int]) -> None:
        """Give back the memory of saved folders for which no more values are awaited. waiting: how many, by folder."""
        for folder, count in waiting.items():
            if not count and folder not in self._changed:
                self._values.pop(folder, None)

    def save(self) -> None:
        """Write the new values; if the cache cannot be written, note it and continue without."""
        try:
            for folder in sorted(self._changed):
                write_text(self._file(folder), json.dumps(self._values[folder], separators=(",", ":")))
            self._changed.clear()
        except (UserError, OSError) as error:
            note(f"The cache of image facts cannot be written, so the next command reads all images again: {error}")

    def _file(self, folder: str) -> Path:
        key = hashlib.sha256(os.fsencode(f"{self.version}\0{Path(folder).resolve()}")).hexdigest()[:24]
        return cache_folder() / self.kind / f"{key}.json"

    def _read(self, folder: str) -> dict[str, list[Any]]:
        try:
            return json.loads(self._file(folder).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

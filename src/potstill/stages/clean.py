"""What can be removed without losing a result: old parts of the cache, stores of finished runs, damaged files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill import artifacts
from potstill.data import cache
from potstill.errors import RunError
from potstill.stages.run_folder import RECORDS


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be made again, its size, and why it is not needed."""

    path: Path
    bytes: int
    reason: str


def removable(runs: Sequence[Path], *, days: float, max_bytes: float | None) -> list[Removable]:
    """Return what can be removed: from the cache, and from finished runs in or below `runs`.

    days: parts of the cache that were not used for so long. max_bytes: of the cache; the least recently used parts go
    first. Raises `RunError` for a folder that does not exist.
    """
    return [*_of_cache(days, max_bytes), *(one for folder in runs for one in _of_runs(folder))]


def remove(found: Sequence[Removable]) -> None:
    """Remove them."""
    for one in found:
        cache.remove(one.path)


def _of_cache(days: float, max_bytes: float | None) -> Iterator[Removable]:
    entries = sorted(cache.entries(), key=lambda entry: entry.used)
    left = sum(entry.bytes for entry in entries)
    for entry in entries:
        unused = (time.time() - entry.used) / 86400
        if unused > days or (max_bytes is not None and left > max_bytes):
            left -= entry.bytes
            yield Removable(entry.path, entry.bytes, f"cache, not used for {unused:.0f} days")


def _of_runs(folder: Path) -> Iterator[Removable]:
    if not folder.is_dir():
        raise RunError(f"There is no folder {folder}. Give run folders, or a folder of them.")
    for run in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if artifacts.finished(run) is None or not any((run / record).is_file() for record in RECORDS):
            continue
        for store in sorted(path for path in run.rglob(artifacts.STORES) if path.is_dir()):
            yield Removable(store, cache.size_of(store), "cached outputs of a finished run")
        for damaged in sorted(run.rglob(f"*{artifacts.DAMAGED}")):
            yield Removable(damaged, cache.size_of(damaged), "damaged, made again since")

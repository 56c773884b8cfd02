"""The decoded images of a manifest as one uint8 array, so that a batch is one indexed copy without Python per image.

Small images are kept in memory. Photos are decoded once to the working size, into a memory-mapped file in the cache
folder that is keyed by the content of the images, resumed after an interruption, and safe to delete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import artifacts
from potstill.data import decode, known_pixels, squares
from potstill.data.cache import cache_folder, make_room, mark_used
from potstill.data.manifest import Manifest, Source
from potstill.data.squares import Window
from potstill.data.workers import in_processes
from potstill.errors import DataError, RunError
from potstill.models.card import Fit
from potstill.progress import note, task
from potstill.words import file_size, plural

SMALL = 64  # pixels per side up to which images are kept in memory
_MEMORY = 2 * 2**30  # bytes up to which they are
_VERSION = 3
_CHUNK = 128  # images per job of a worker process
_SAMPLE = 16
How = tuple[Window, int, Fit]  # window, channels and policy of `squares.fitted`


class Pixels:
    """uint8 images, in memory or memory-mapped; row i is row i of the manifest.

    array: [N, C, H, W], or [N, H, W, C] with `channels_last`, in which torch resizes photos more than twice as fast.
    unchanged: whether these are the pixels of the files, all of one size.
    """

    def __init__(self, array: np.ndarray, *, channels_last: bool = False, unchanged: bool = False) -> None:
        self._data, self._channels_last, self.unchanged = array, channels_last, unchanged
        self._there: dict[torch.device, PixelsThere] = {}

    def on(self, device: torch.device) -> Pixels | PixelsThere:
        """Return the images for a training device: in the memory of an accelerator if they are small enough."""
        if device.type == "cpu" or self._data.nbytes > _MEMORY:
            return self
        if device not in self._there:
            data = torch.from_numpy(np.ascontiguousarray(self._data)).to(device)
            self._there[device] = PixelsThere(data.permute(0, 3, 1, 2) if self._channels_last else data)
        return self._there[device]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        shape = self._data.shape
        count, *rest = shape
        channels, height, width = (rest[2], rest[0], rest[1]) if self._channels_last else rest
        return count, channels, height, width

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Return uint8 [B, C, H, W] of these rows (int64 [B])."""
        # numpy copies in one thread: several threads take a hundred times as long if the cores are shared.
        taken = torch.from_numpy(self._data[np.asarray(rows, dtype=np.int64)])
        return taken.permute(0, 3, 1, 2) if self._channels_last else taken


class PixelsThere:
    """uint8 images in the memory of an accelerator, copied there once."""

    def __init__(self, data: torch.Tensor) -> None:
        self._data = data
        self.shape = tuple(data.shape)

    def on(self, device: torch.device) -> PixelsThere:
        """Return these images, which are already on the device."""
        assert device.type == self._data.device.type, "images are not copied from one accelerator to another"
        return self

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Return uint8 [B, C, H, W] of these rows (int64 [B])."""
        chosen = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        return self._data.index_select(0, chosen.to(self._data.device, non_blocking=True))


def load_pixels(
    manifest: Manifest,
    *,
    size: Window | None,
    resize: int | None,
    channels: int,
    fit: Fit = "crop",
    cache: Path | None = None,
    keep_small: bool = True,
) -> Pixels:
    """Return the decoded images of a manifest, with `channels` (1 or 3).

    Images that all have one size of at most 64 pixels per side are kept unchanged. All others are resized to
    `squares.window_of(size, resize, fit)` by `squares.fitted`. keep_small=False keeps images unchanged only if they
    have the given size (height, width), as trained models require. cache: a folder for decoded photos, by default one
    in the user's cache folder.
    Raises `DataError` for images that cannot be read, `RunError` if the disk is too full.
    """
    native, seconds = _sample(manifest)
    if native and max(native) <= SMALL and (keep_small or size is None or native == size):
        array = _in_memory(manifest, squares.as_they_are, (native, channels), seconds)
        if array is not None:
            return Pixels(array, unchanged=True)
    if size is None or resize is None:
        raise DataError(f"The images of {manifest.root} differ in size or are large. Set the size to resize them to.")
    window = squares.window_of(size, resize, fit)
    if max(window) <= SMALL and len(manifest) * channels * window[0] * window[1] <= _MEMORY:
        array = _in_memory(manifest, squares.all_fitted, (window, channels, fit), seconds)
        assert array is not None, "all_fitted resizes every image"
        return Pixels(array)
    folder = cache or cache_folder() / "pixels"
    return Pixels(_mapped(manifest, (window, channels, fit), folder, seconds), channels_last=True)


def fitted(pixels: np.ndarray, *, size: Window, resize: int, channels: int, fit: Fit = "crop") -> np.ndarray:
    """Return uint8 [C, H, W] of one decoded image [H, W, C], processed exactly as by `load_pixels`."""
    return squares.fitted(pixels, squares.window_of(size, resize, fit), channels, fit)


def _sample(manifest: Manifest) -> tuple[Window | None, float]:
    """Return the common size of a sample of images (None if they differ) and the estimated seconds to decode all."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, _SAMPLE).astype(int)).tolist()
    manifest.image(rows[0])  # not timed: Pillow loads its readers with the first image
    start = time.perf_counter()
    sizes = {manifest.image(row).shape[:2] for row in rows}
    seconds = (time.perf_counter() - start) / len(rows) * len(manifest)
    return sizes.pop() if len(sizes) == 1 else None, seconds


def _chunks(manifest: Manifest) -> Iterator[tuple[int, Source]]:
    for start in range(0, len(manifest), _CHUNK):
        rows = [manifest.source_row(row) for row in range(start, min(start + _CHUNK, len(manifest)))]
        yield start, manifest.source.only(rows)


def _runs(manifest: Manifest, done: np.ndarray) -> Iterator[tuple[int, Source]]:
    """Yield the first row and the source of each run of at most `_CHUNK` rows that are not done."""
    rows = np.flatnonzero(~done)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks) if len(rows) else ():
        for start in range(0, len(run), _CHUNK):
            part = run[start : start + _CHUNK]
            yield int(part[0]), manifest.source.only([manifest.source_row(int(row)) for row in part])


def _in_memory(
    manifest: Manifest, work: Callable[..., np.ndarray | None], how: tuple[Any, ...], seconds: float
) -> np.ndarray | None:
    """Return the images that `work` makes of a source; how: its other arguments, (window, channels, ...)."""
    window, channels, *_ = how
    made = np.empty((len(manifest), channels, *window), dtype=np.uint8)
    jobs = ((source, *how) for _, source in _chunks(manifest))
    done = 0
    with task("Decoding images", len(manifest)) as shown:
        for part in in_processes(work, jobs, seconds=seconds):
            if part is None:
                return None
            made[done : done + len(part)] = part
            done += len(part)
            shown.advance(len(part))
    return made


def _mapped(manifest: Manifest, how: How, cache: Path, seconds: float) -> np.ndarray:
    window, channels, _ = how
    folder = cache / _key(manifest, how)
    file, shape = folder / "pixels.u8", (len(manifest), *window, channels)
    if not _whole(file, int(np.prod(shape))):
        try:
            _fill(manifest, how, folder, seconds)
            make_room(folder)
        except OSError as error:
            raise _disk_error(error, folder) from error
    mark_used(folder)
    return np.memmap(file, dtype=np.uint8, mode="c", shape=shape)


def _whole(file: Path, size: int) -> bool:
    """Return whether decoded images are complete and unchanged since; if not, what is there is removed."""
    folder = file.parent
    made = artifacts.read_json_if_whole(folder / artifacts.MANIFEST)
    if made is None:
        return False
    stat = file.stat() if file.is_file() else None
    if stat and (stat.st_size, stat.st_mtime_ns) == (size, made.get("changed")):
        return True
    artifacts.remove(folder)
    return False


def _key(manifest: Manifest, how: How) -> str:
    window, channels, fit = how
    policy = [] if fit == "crop" else [fit]
    facts = json.dumps([_VERSION, decode.VERSION, window, channels, *policy])
    return hashlib.sha256(facts.encode() + np.ascontiguousarray(manifest.digest).tobytes()).hexdigest()[:32]


def _fill(manifest: Manifest, how: How, folder: Path, seconds: float) -> None:
    """Decode all images that an earlier, interrupted run has not; then mark the folder as complete."""
    window, channels, _ = how
    total = len(manifest) * channels * window[0] * window[1]
    file, journal = folder / "pixels.u8", folder / "done.txt"
    _refuse_full_disk(folder, total)
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file() or file.stat().st_size != total:
        journal.write_text("")
        with file.open("wb") as handle:
            handle.truncate(total)
    done = _done(journal, len(manifest)) | known_pixels.copied(file, manifest.digest, how)
    todo = list(_runs(manifest, done))
    if todo:  # otherwise all are known from other folders
        note(
            f"Decoding {plural(int((~done).sum()), 'image')} to {window[1]} x {window[0]} pixels once: "
            f"{file_size(total)} in {folder}, which may be deleted at any time."
        )
    _write(manifest, todo, how, file, journal, seconds)
    known_pixels.remember(folder, manifest.digest, how)
    facts = {"images": len(manifest), "bytes": total, "window": list(window), "channels": channels}
    artifacts.finish(folder, {**facts, "changed": file.stat().st_mtime_ns}, files=False)


def _write(
    manifest: Manifest,
    todo: list[tuple[int, Source]],
    how: How,
    file: Path,
    journal: Path,
    seconds: float,
) -> None:
    jobs = ((source, *how, file, start) for start, source in todo)
    left = sum(len(source.names) for _, source in todo)
    problems: list[str] = []
    with task("Decoding images", len(manifest), len(manifest) - left) as shown, journal.open("a") as handle:
        made = in_processes(squares.write_fitted, jobs, seconds=1.5 * seconds * left / len(manifest))
        for (start, source), wrong in zip(todo, made, strict=True):
            problems += wrong
            if not wrong:
                handle.write(f"{start} {len(source.names)}\n")
                handle.flush()
            shown.advance(len(source.names))
    if problems:
        raise DataError(
            f"{plural(len(problems), 'image')} changed since the data set was listed and can no longer be read. Run "
            "the command again.",
            *problems[:5],
        )


def _done(journal: Path, count: int) -> np.ndarray:
    """Return which rows were written, bool [N]; a line without a newline is incomplete."""
    text = journal.read_text() if journal.is_file() else ""
    done = np.zeros(count, bool)
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            start, length = map(int, line.split())
            done[start : start + length] = True
    return done


def _refuse_full_disk(folder: Path, total: int) -> None:
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    written = sum(path.stat().st_blocks * 512 for path in folder.glob("pixels.u8"))
    if total - written > free:
        raise RunError(
            f"The decoded images need {file_size(total)} in {folder}, and {file_size(free)} are free there. "
            "Free some space, choose a smaller size, or set POTSTILL_CACHE to a folder on another disk."
        )


def _disk_error(error: OSError, folder: Path) -> RunError:
    """Return the error for decoded images that cannot be written; on a full disk remove them first."""
    advice = "or set POTSTILL_CACHE to a folder on another disk, and run the same command again."
    if error.errno == errno.ENOSPC:
        artifacts.remove(folder)
        return RunError(
            f"The disk is full: images could not be decoded to {folder}, and the partial files were removed. Free some "
            f"space, {advice}"
        )
    reason = error.strerror or error
    return RunError(f"The decoded images cannot be written to {folder} ({reason}). Make it writable, {advice}")

"""Output folders that are either complete or recognisably unfinished.

Every file is written to a temporary name in the same folder, flushed to disk and renamed; the manifest of a folder is
written last, so its presence means that the folder is complete. An interrupted command leaves a folder without a
manifest, which is resumed or redone and never read as a result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.errors import RunError

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.safetensors"  # present while training is in progress


_awaited: list[tuple[Path, Callable[[], None]]] = []


@contextlib.contextmanager
def before_first_write(folder: Path, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` before the first file below `folder` is written inside the block."""
    entry = (folder.absolute(), action)
    _awaited.append(entry)
    try:
        yield
    finally:
        if entry in _awaited:
            _awaited.remove(entry)


def _announce(file: Path) -> None:
    """Call the actions registered for the first write below their folder."""
    for entry in list(_awaited):
        if entry in _awaited and file.absolute().is_relative_to(entry[0]):
            _awaited.remove(entry)
            entry[1]()


@contextlib.contextmanager
def atomic(file: Path, *, by_all: bool = False) -> Iterator[Path]:
    """Yield a temporary path; rename it to `file` on success, remove it on failure.

    With several processes (`torchrun`) only rank 0 keeps its file; by_all: every rank writes files of its own.
    Raises `RunError` if the disk is full or not writable.
    """
    _announce(file)
    temporary = file.with_name(f".{file.name}.{distributed.rank()}-{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if by_all or distributed.is_main():
            temporary.replace(file)
    except OSError as error:
        raise _disk_error(error, file) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _disk_error(error: OSError, file: Path) -> Exception:
    if error.errno == errno.ENOSPC:
        return RunError(
            f"The disk is full: {file} could not be written. No partial file was kept. "
            "Free some space and run the same command again; it resumes where it stopped."
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return RunError(f"{file} cannot be written ({error.strerror}). Choose another folder with --out.")
    return error


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(file: Path) -> Any:
    """Return the parsed content of a JSON file; raise `RunError` if it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{file} is damaged ({error}). Remove its folder and run the same command again.") from None


def fingerprint(value: Any) -> str:
    """Return the sha256 (hex) of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder, which marks it as complete."""
    write_json(folder / MANIFEST, manifest)


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete folder, None if it is unfinished or absent."""
    file = folder / MANIFEST
    return read_json(file) if file.is_file() else None


def stage(folder: Path, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a folder's manifest, running `work` first unless the folder is complete with the same inputs.

    inputs: everything the result depends on, as JSON. work: fills the folder and returns what to record.
    With several processes all must call it. Raises `RunError` if the folder is complete but has other inputs.
    """
    done = finished(folder)
    distributed.wait()  # every rank has read the folder before rank 0 writes to it
    if done is None:
        recorded = work()
        finish(folder, {"inputs": inputs, **recorded})
        if distributed.is_main():
            (folder / CHECKPOINT).unlink(missing_ok=True)
        distributed.wait()
        return read_json(folder / MANIFEST)
    inputs = json.loads(json.dumps(inputs))
    if done["inputs"] != inputs:
        different = sorted(k for k in {*done["inputs"], *inputs} if done["inputs"].get(k) != inputs.get(k))
        raise RunError(
            f"{folder} was made with another {' and '.join(different)}. "
            "Choose a new folder with --out, or remove this one if it is no longer needed."
        )
    return done


def remove(folder: Path) -> None:
    """Remove a folder that potstill created, with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)

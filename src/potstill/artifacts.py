"""Output folders that are either complete or recognisably unfinished.

Every file is written to a temporary name in the same folder, flushed to disk and renamed; the manifest of a folder is
written last, so its presence means that the folder is complete. An interrupted command leaves a folder without a
manifest, which is resumed or redone and never read as a result.

The manifest has the size and sha256 of every file of its folder. A file that differs from it is set aside under the
name NAME.damaged together with the manifest, so that the same command makes this folder again, and no other.
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
from typing import Any, TypeVar

import psutil
from pydantic import BaseModel, ValidationError

from potstill import distributed
from potstill.errors import RunError
from potstill.progress import note
from potstill.writable import obstacle

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.safetensors"  # present while training is in progress
DAMAGED = ".damaged"  # suffix of what was set aside
STORES = "stores"  # folder of the cached outputs of a run, whose parts have checksums of their own
_OTHER_CONTENT = "has another content (its digest differs)"
LARGE = 64_000_000  # bytes; larger files are not read again while size and modification time are as they were


R = TypeVar("R", bound=BaseModel)
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


def about_to_write(file: Path) -> None:
    """Call the actions registered for the first write below their folder: this or another process writes `file`."""
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
    temporary = file.with_name(f".{file.name}.{distributed.rank()}-{os.getpid()}.tmp")
    try:
        about_to_write(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if by_all or distributed.is_main():
            temporary.replace(file)
    except Exception as error:
        wrong = disk_error(error, file)
        if wrong is None:
            raise
        raise wrong from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def disk_error(error: Exception, file: object) -> RunError | None:
    """Return the error for a file that cannot be written because of its disk or folder; None for any other error.

    Libraries that write by themselves, such as safetensors, have errors of their own, which are known by their text.
    """
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return RunError(
            f"The disk is full: {file} could not be written. No partial file was kept. "
            "Free some space and run the same command again; it resumes where it stopped."
        )
    if not isinstance(error, OSError):
        return None
    why = obstacle(Path(str(file)).parent)  # ENOENT and the like are of this file only if its folder is the obstacle
    if not why and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG):
        why = error.strerror or str(error)
    return RunError(f"{file} cannot be written: {why}. Choose another folder for it.") if why else None


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically; the bytes of file names that are not UTF-8 are written as they are."""
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(file: Path) -> Any:
    """Return the parsed content of a JSON file; raise `RunError` if it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except (ValueError, RecursionError, OSError) as error:
        raise RunError(
            f"{file} is damaged ({error}). Run the command that made {file.parent} again: it sets the damaged file "
            "aside and makes that part anew."
        ) from None


def read_record(kind: type[R], file: Path) -> R:
    """Return the content of a JSON file as a pydantic model; raise `RunError` that names every wrong key."""
    try:
        return kind.model_validate(read_json(file))
    except ValidationError as error:
        raise RunError(
            f"{file} is damaged or was edited: {problems_of(error)}. Run the command that made {file.parent} again, or "
            "restore the file."
        ) from None


def problems_of(error: ValidationError) -> str:
    """Return the first wrong keys of a record and why: "views: Input should be a valid integer"."""
    found = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()]
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if found[3:] else "")


def read_object(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object; raise `RunError` if it holds anything else."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise RunError(
            f"{file} is damaged or was edited: it is no JSON object. Restore it, or make {file.parent} anew."
        )
    return content


def read_json_if_whole(file: Path) -> Any | None:
    """Return the parsed content of a JSON file; None if it is absent, or damaged and therefore set aside."""
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except RunError:
        set_aside(file.parent, {file.name: "is not JSON"})
        return None


def read_sealed_if_whole(file: Path) -> dict[str, Any] | None:
    """Return the content of a file of a `sealed` object; None if it is absent, or damaged and therefore set aside."""
    content = read_json_if_whole(file)
    if content is None or is_sealed(content):
        return content and _unsealed(content)
    set_aside(file.parent, {file.name: _OTHER_CONTENT})
    return None


def write_first(file: Path, value: Any) -> Any:
    """Write a JSON file unless it exists, also where several processes do at once; return what it holds.

    Under torchrun all processes must call it; the value is that of process 0.
    """
    if distributed.is_main() and not file.is_file():
        own = file.with_name(f".{file.name}.{os.uname().nodename}-{os.getpid()}.tmp")
        write_json(own, value)
        with contextlib.suppress(FileExistsError):
            os.link(own, file)  # unlike a rename, it never replaces
        own.unlink()
    return distributed.broadcast(read_json(file) if distributed.is_main() else None)


def sha256(file: Path) -> str:
    """Return the sha256 (hex) of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return the sha256 (hex) of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def finish(folder: Path, manifest: dict[str, Any], *, files: bool = True) -> None:
    """Write the manifest of a folder, which marks it as complete.

    files: record size and sha256 of its files; False where they have checksums of their own.
    """
    recorded = manifest | ({"files": contents(folder)} if files and distributed.is_main() else {})
    write_json(folder / MANIFEST, sealed(recorded))


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a digest of itself, which `is_sealed` checks."""
    return value | {"digest": fingerprint(value)}


def is_sealed(value: Any) -> bool:
    """Return whether a JSON object is as `sealed` returned it."""
    return isinstance(value, dict) and value.get("digest") == fingerprint(_unsealed(value))


def _unsealed(value: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != "digest"}


def update(file: Path) -> None:
    """Record a file again in the manifest of its folder, after it was made anew from the others."""
    manifest = finished(file.parent)
    if manifest is not None and file.name in _recorded(manifest):
        files = {**manifest["files"], file.name: _fact(file)}
        write_json(file.parent / MANIFEST, sealed({**_own(manifest), "files": files}))


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete folder, None if it is unfinished or absent."""
    file = folder / MANIFEST
    return read_object(file) if file.is_file() else None


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of the files of a folder by relative path, but not of folders with a manifest."""
    return {file.relative_to(folder).as_posix(): _fact(file) for file in _files_of(folder)}


def _fact(file: Path) -> dict[str, Any]:
    stat = file.stat()
    changed = {"changed": stat.st_mtime_ns} if stat.st_size > LARGE else {}
    return {"bytes": stat.st_size, "sha256": sha256(file), **changed}


def _files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            if path.name != STORES and not (path / MANIFEST).is_file():
                yield from _files_of(path)
        elif path.name not in (MANIFEST, CHECKPOINT) and path.suffix != DAMAGED and not path.name.startswith("."):
            yield path


def damages(folder: Path) -> dict[str, str]:
    """Return what is wrong with the files of a complete folder, by relative path; a manifest that is no JSON is one."""
    try:
        manifest = finished(folder)
    except RunError:
        return {MANIFEST: "is not JSON"}
    if isinstance(manifest, dict) and "digest" in manifest and not is_sealed(manifest):
        return {MANIFEST: _OTHER_CONTENT}
    found = {name: _damage(folder / name, fact) for name, fact in _recorded(manifest).items()}
    return {name: wrong for name, wrong in found.items() if wrong}


def _recorded(manifest: Any) -> dict[str, dict[str, Any]]:
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return files if isinstance(files, dict) else {}


def _damage(file: Path, fact: dict[str, Any]) -> str:
    if not file.is_file():
        return "is missing"
    stat = file.stat()
    if not isinstance(fact, dict) or type(fact.get("bytes")) is not int or type(fact.get("sha256")) is not str:
        return "has no complete record"
    if stat.st_size != fact["bytes"]:
        return f"has {stat.st_size:,} bytes instead of {fact['bytes']:,}"
    if stat.st_size > LARGE and stat.st_mtime_ns == fact.get("changed"):
        return ""
    return "" if sha256(file) == fact["sha256"] else "has another content (its sha256 differs)"


def check_file(file: Path) -> None:
    """Raise `RunError` if a file is not what the manifest of its folder records; others are not checked."""
    try:
        manifest = finished(file.parent)
    except RunError:
        return  # of another program, or damaged, which the command that made the folder notices
    fact = _recorded(manifest).get(file.name)
    if fact and (wrong := _damage(file, fact)):
        raise RunError(
            f"{file} {wrong}: it is damaged or was changed after potstill wrote it. Run the command that made "
            f"{file.parent} again, which makes this part anew. To use the changed file, copy it to another folder."
        )


def set_aside(folder: Path, wrong: dict[str, str]) -> None:
    """Rename the files of a folder that are wrong, and its manifest, and note it."""
    for name in {**wrong, MANIFEST: ""}:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).replace(folder / f"{name}{DAMAGED}")
    listed = "; ".join(f"{folder / name} {what}" for name, what in list(wrong.items())[:3])
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    note(f"Damaged on disk: {listed}{more}. What was there is kept as NAME{DAMAGED}, and that part is made again.")


def keep_whole(folder: Path) -> bool:
    """Set damaged files of a complete folder aside; return whether there were none. All processes must call it."""
    whole = True
    if distributed.is_main() and (wrong := damages(folder)):
        set_aside(folder, wrong)
        whole = False
    return distributed.broadcast(whole)


_under_way: dict[Path, dict[str, Any]] = {}


def inputs_of(folder: Path) -> dict[str, Any]:
    """Return the inputs of the stage that works in a folder: what its checkpoint belongs to. Empty without a stage."""
    return _under_way.get(folder.absolute(), {})


def stage(folder: Path, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a folder, running `work` first unless the folder is complete with the same inputs.

    inputs: everything the result depends on, as JSON. work: fills the folder and returns what to record.
    A damaged folder is made again. With several processes all must call it. Raises `RunError` if the folder is
    complete but has other inputs.
    """
    inputs = json.loads(json.dumps(inputs))
    keep_whole(folder)
    done = _made(folder)
    distributed.wait()  # every rank has read the folder before rank 0 writes to it
    if done is None:
        _under_way[folder.absolute()] = inputs
        try:
            recorded = work()
        finally:
            del _under_way[folder.absolute()]
        finish(folder, {"inputs": inputs, **recorded})
        _without_checkpoint(folder)
        distributed.wait()
        return _own(read_json(folder / MANIFEST))
    if different := differing(done["inputs"], inputs):
        raise RunError(
            f"{folder} was made with another {different}. "
            "Choose a new folder with --out, or remove this one if it is no longer needed."
        )
    _without_checkpoint(folder)  # of a process that was killed right after it wrote the manifest
    return _own(done)


def _without_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished training."""
    if distributed.is_main():
        (folder / CHECKPOINT).unlink(missing_ok=True)


def _made(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete stage; one that does not say what it was made from is set aside."""
    done = finished(folder)
    if done is None or isinstance(done.get("inputs"), dict):
        return done
    if distributed.is_main():
        set_aside(folder, {MANIFEST: "lacks its inputs"})
    return None


def _own(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a stage recorded, without what `finish` added."""
    return {key: value for key, value in manifest.items() if key not in ("files", "digest")}


def differing(made: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the names of the inputs that differ, as text; "" if none does."""
    return " and ".join(sorted(key for key in {*made, *now} if made.get(key) != now.get(key)))


def is_abandoned(file: Path) -> bool:
    """Return whether a file is a temporary one of `atomic` whose writer no longer runs."""
    pid = file.name.removesuffix(".tmp").rpartition("-")[2]
    return file.name.startswith(".") and file.suffix == ".tmp" and pid.isdecimal() and not psutil.pid_exists(int(pid))


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files below a folder whose writers no longer run."""
    for file in folder.rglob(".*.tmp"):
        if is_abandoned(file):
            file.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder that potstill created, with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)

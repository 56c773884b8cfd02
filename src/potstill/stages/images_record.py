"""The images that a run was made from: `images.json`, written with its first file and compared whenever it starts.

Every data set that a stage reads is read through `read_images`, which records names, digests, classes and splits, or
compares them with the record. So images or labels that changed are named, in a finished run too, and no training is
resumed on other images.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from potstill import artifacts, progress
from potstill.data.csv_files import write_csv
from potstill.data.formats import hub, read_manifest, remote
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest
from potstill.errors import RunError, UserError
from potstill.stages.run_folder import IMAGES, SPLITS_FILE, has_results
from potstill.words import plural

Reader = Callable[..., Manifest]
LABELLED = "images"
READERS: dict[str, Reader] = {LABELLED: read_manifest}
"""The readers of recorded data sets by name; a stage with one of its own adds it."""
NAMED = 3  # images that a message names
_current: contextvars.ContextVar[ImagesRecord | None] = contextvars.ContextVar("potstill_images", default=None)


class ImagesRecord:
    """The record of a run folder. command: as it was typed."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self._command, self._file = folder, command, folder / IMAGES
        stored = artifacts.read_json_if_whole(self._file) if has_results(folder) else None
        if stored is not None and (wrong := _wrong(stored)):
            artifacts.set_aside(folder, {IMAGES: wrong})
            stored = None
        self._reads: list[dict[str, Any]] = stored["reads"] if stored else []
        self._written = bool(self._reads)
        self._split: Manifest | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record and compare every data set that is read in the block; the file is written with the first other one."""
        token = _current.set(self)
        try:
            with artifacts.before_first_write(self.folder, self._write):
                yield
        finally:
            _current.reset(token)

    def _write(self) -> None:
        self._written = True
        if self._split is not None:
            write_csv(self.folder / SPLITS_FILE, ("path", "split", "label", "group"), _split_rows(self._split))
        if not self._reads:
            return
        sealed = artifacts.sealed({"reads": self._reads})
        artifacts.write_text(self._file, json.dumps(sealed, ensure_ascii=False, separators=(",", ":")) + "\n")

    def add(self, reader: str, path: str, options: dict[str, Any], manifest: Manifest) -> None:
        """Record a data set that was read, or compare it; raise `RunError` if images or labels changed."""
        key = {"reader": reader, "path": _absolute(path), "options": options}
        earlier = next((read for read in self._reads if {name: read[name] for name in key} == key), None)
        if earlier is None:
            self._reads.append({**key, **_described(manifest)})
            if self._written:
                self._write()
        elif earlier["fingerprint"] != manifest.fingerprint:
            raise self._changed(path, earlier, _described(manifest))

    def add_splits(self, manifest: Manifest) -> None:
        """Record which images are in which split: `splits.csv`, for the user."""
        self._split = manifest
        if self._written:
            self._write()

    def compare(self) -> None:
        """Read the recorded data sets again; raise `RunError` if one changed, note one that can no longer be read."""
        for read in self._reads:
            if str(read["path"]).startswith(hub.PREFIX):
                continue  # would be downloaded; a data set of the hub has a fixed content
            try:
                with progress.use(progress.Display()):
                    manifest = READERS[read["reader"]](read["path"], **read["options"])
            except (UserError, OSError, KeyError, TypeError, ValueError):  # the last: a reader of another version
                progress.note(
                    f"The images of {read['path']} cannot be read any more, so they were not compared with those that "
                    f"{self.folder} was made from."
                )
                continue
            if manifest.fingerprint != read["fingerprint"]:
                raise self._changed(read["path"], read, _described(manifest))

    def _changed(self, path: str, made: dict[str, Any], now: dict[str, Any]) -> RunError:
        finished = artifacts.finished(self.folder) is not None
        state = "was made: its result is that of the old images" if finished else "was begun"
        new = _next_folder(self.folder)
        return RunError(
            f"The images of {path} changed since {self.folder} {state}. {differences(made, now)} For the images as "
            f"they are now, choose a new folder: {_retyped(self._command, new)}"
        )


class _Read(BaseModel):
    """A data set that was read: its fingerprint, classes, and digest, label and split of each image by name."""

    reader: str
    path: str
    options: dict[str, Any]
    fingerprint: str
    classes: list[str]
    images: dict[str, tuple[str, str | None, str]]


class _Reads(BaseModel):
    """What images.json holds, beside its digest."""

    reads: list[_Read]


def _wrong(stored: object) -> str:
    """Return what is wrong with the content of images.json; "" if nothing is."""
    if not artifacts.is_sealed(stored):
        return "has another content (its digest differs)"
    try:
        _Reads.model_validate(stored)
    except ValidationError as error:
        return f"has other contents ({artifacts.problems_of(error)})"
    return ""


def read_images(name: str, reader: Reader, path: str, **options: Any) -> Manifest:
    """Return `reader(path, **options)`; inside a stage it is recorded under the reader's name, or compared."""
    manifest = reader(path, **options)
    if record := _current.get():
        record.add(name, path, options, manifest)
    return manifest


def read_labelled(path: str, **options: Any) -> Manifest:
    """Return the manifest of the images at `path`, recorded in the run folder of a stage."""
    return read_images(LABELLED, read_manifest, path, **options)


def record_splits(manifest: Manifest) -> Manifest:
    """Return the manifest as it is used, with all splits; inside a stage it is written to `splits.csv`."""
    if record := _current.get():
        record.add_splits(manifest)
    return manifest


def _split_rows(manifest: Manifest) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, split, label and group of each image; groups are numbered from 1."""
    number: dict[int, int] = {}
    for row in range(len(manifest)):
        label = int(manifest.label[row])
        key = None if manifest.group is None else int(manifest.group[row])
        group = "" if key is None else str(number.setdefault(key, len(number) + 1))
        name = "" if label == UNLABELLED else manifest.classes[label]
        yield manifest.name(row), SPLITS[manifest.split[row]], name, group


def _absolute(path: str) -> str:
    return path if path.startswith(hub.PREFIX) or remote.is_url(path) else str(Path(path).expanduser().absolute())


def _described(manifest: Manifest) -> dict[str, Any]:
    label, split, digest = manifest.label.tolist(), manifest.split.tolist(), manifest.digest.tolist()
    images = {
        manifest.name(row): [
            f"{digest[row]:016x}",
            None if label[row] == UNLABELLED else manifest.classes[label[row]],
            SPLITS[split[row]],
        ]
        for row in range(len(manifest))
    }
    return {"fingerprint": manifest.fingerprint, "classes": list(manifest.classes), "images": images}


def differences(made: dict[str, Any], now: dict[str, Any]) -> str:
    """Return sentences about the images that differ between two records, with names and numbers."""
    before, after = made["images"], now["images"]
    both = before.keys() & after.keys()
    kinds = {
        "changed": [name for name in both if before[name][0] != after[name][0]],
        "with another label": [name for name in both if before[name][1] != after[name][1]],
        "in another split": [name for name in both if before[name][2] != after[name][2]],
        "new": list(after.keys() - before.keys()),
        "gone": list(before.keys() - after.keys()),
    }
    found = [f"{plural(len(names), 'image')} {kind}: {_some(names)}." for kind, names in kinds.items() if names]
    if made["classes"] != now["classes"]:
        found.append(f"The classes were {', '.join(made['classes'])}; they are {', '.join(now['classes'])}.")
    return " ".join(found) or "Their order changed."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(sorted(names)[:NAMED]) + more


def _next_folder(folder: Path) -> Path:
    number = 2
    while (new := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return new


def _retyped(command: str, folder: Path) -> str:
    """Return a command with another --out; the flag alone if it is not known what was typed."""
    words = shlex.split(command)
    kept = [
        word
        for number, word in enumerate(words)
        if word != "--out" and not word.startswith("--out=") and (number == 0 or words[number - 1] != "--out")
    ]
    return shlex.join([*kept, "--out", str(folder)])

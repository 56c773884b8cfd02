"""The folder of a stage: the settings it belongs to, and a journal of its parts, their seconds and notes.

A folder belongs to the settings in its record (`recipe.yaml`, `prune.yaml`, ...), which is written before the first
file. Until the folder has a result (a finished part, a checkpoint, stored outputs) it can be used with any settings,
and a command that fails before that leaves no folder behind.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from potstill import artifacts, distributed
from potstill.config import Config, build, read_yaml
from potstill.errors import ConfigError, RunError, UserError
from potstill.progress import parts
from potstill.stages.run_lock import entries, holds
from potstill.training import divergence
from potstill.words import argument
from potstill.writable import obstacle

T = TypeVar("T")

RECIPES = {"distill": "run", "compare": "compare"}
"""The stages that are started by a recipe, and the command that resumes them."""
JOURNAL = "journal.json"
IMAGES, SPLITS_FILE = "images.json", "splits.csv"
"""The names, digests and classes of the images that were read (`stages/images_record.py`)."""
RECORDS = (
    "recipe.yaml",
    "finetune.yaml",
    "selftrain.yaml",
    "label.yaml",
    "prune.yaml",
    "quantize.yaml",
    "export.yaml",
    "shrink.yaml",
    "train.yaml",
    "experiment.yaml",
)
LEFT_OVER = {JOURNAL, IMAGES, SPLITS_FILE, "original.onnx", *RECORDS} - {"recipe.yaml"}
"""Files that a start without a result leaves. A recipe.yaml is not among them: people write it too."""


class _Stored(BaseModel):
    """What journal.json holds."""

    seconds: dict[str, float]
    notes: list[str]


class Journal:
    """The parts of a stage in their order, their seconds, and all notes, including those of interrupted calls.

    notes: the list to which the notes of this call are added (`progress.recorded`).
    """

    def __init__(self, folder: Path, notes: list[str]) -> None:
        self._file = folder / JOURNAL
        earlier = _earlier(self._file)
        self._spent: dict[str, float] = earlier["seconds"]
        self._earlier_notes: list[str] = earlier["notes"]
        self._notes = notes
        self.stages: list[dict[str, Any]] = []

    def timed(self, name: str, title: str, work: Callable[[], T]) -> T:
        """Run `work` and record its time, added to that of interrupted calls; `title` is its line in the report.

        Failed work is recorded only if it left a result to resume from.
        """
        began = time.monotonic()
        parts.enter(name)
        try:
            result = work()
        except BaseException:
            if has_results(self._file.parent):
                self._add(name, title, began)
            raise
        self._add(name, title, began)
        return result

    def _add(self, name: str, title: str, began: float) -> None:
        key = f"{name}: {title}"
        self._spent[key] = round(self._spent.get(key, 0.0) + time.monotonic() - began, 2)
        artifacts.write_json(self._file, {"seconds": self._spent, "notes": self.notes})
        self.stages.append({"name": name, "title": title, "seconds": self._spent[key]})

    @property
    def seconds(self) -> float:
        """Seconds of all parts."""
        return round(sum(stage["seconds"] for stage in self.stages), 1)

    @property
    def notes(self) -> list[str]:
        """All notes, each once."""
        return list(dict.fromkeys([*self._earlier_notes, *self._notes]))


def _earlier(file: Path) -> dict[str, Any]:
    """Return seconds and notes of interrupted calls; empty ones if the file is damaged, which is set aside."""
    stored = artifacts.read_json_if_whole(file)
    if stored is None:
        return {"seconds": {}, "notes": []}
    try:
        return _Stored.model_validate(stored).model_dump()
    except ValidationError as error:
        artifacts.set_aside(file.parent, {file.name: f"has other contents ({artifacts.problems_of(error)})"})
        return {"seconds": {}, "notes": []}


def record_name(kind: str) -> str:
    """Return the name of the file with the settings of a folder."""
    return "recipe.yaml" if kind in RECIPES else f"{kind}.yaml"


def recorded_data(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the data that the model in a folder was made with; None if no record has them.

    Looked up in the record of the folder, in that of the run it is a part of (runs/NAME/distill/seed-0), and for a
    compressed model in that of the model it was made from.
    """
    runs = [place for place in (folder.parent, folder.parent.parent) if (place / "summary.json").is_file()]
    for place in (folder, *runs):
        for record in (place / name for name in RECORDS):
            if record.is_file():
                settings = read_yaml(record)
                source = settings.get("model")
                return settings.get("data") or (recorded_data(Path(source)) if isinstance(source, str) else None)
    return None


def has_results(folder: Path) -> bool:
    """Return whether a folder has a result to resume from: a finished part, a checkpoint, stored tensors."""
    results = (artifacts.MANIFEST, "*.safetensors")
    return any(file.parent.name != divergence.FOLDER for pattern in results for file in folder.rglob(pattern))


def has_failed_step(folder: Path) -> bool:
    """Return whether the failing step of a training that diverged is kept in a folder."""
    return next(folder.rglob(f"{divergence.FOLDER}/{divergence.FACTS}"), None) is not None


def check_free(folder: Path, settings: Config, kind: str) -> None:
    """Raise `RunError` if `folder` has other contents, or results of other settings.

    kind: distill, compare, selftrain, finetune, label, prune, quantize or export.
    """
    file = folder / record_name(kind)
    if not folder.exists() or not (file.is_file() or not folder.is_dir() or entries(folder)):
        return
    if folder.is_dir() and entries(folder) <= LEFT_OVER:
        return  # of another command that failed or was interrupted before it had a result
    if not file.is_file():
        if file.with_name(f"{file.name}{artifacts.DAMAGED}").is_file():
            return  # it was set aside; the parts of the run know what they were made from
        raise RunError(f"{folder} exists and has other contents. Choose a new folder with --out.")
    if not has_results(folder):
        return
    try:
        differing = differences(file, settings, reused=True)
    except ConfigError:  # no YAML
        artifacts.set_aside(folder, {file.name: "is not YAML"})
        return
    if differing:
        more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        resume = (
            f", or resume that run: potstill {RECIPES[kind]} {argument(file)} --out {argument(folder)}"
            if kind in RECIPES
            else ""
        )
        raise RunError(
            f"{folder} was made with other settings: {differing[0]}{more} (see {file}). "
            f"Choose a new folder with --out{resume}."
        )


def check_writable(folder: Path) -> None:
    """Raise `RunError` if results cannot be written to `folder`, which need not exist. Called before the work."""
    if distributed.is_main() and (why := obstacle(folder)):  # the other processes write nothing
        raise RunError(f"The results cannot be written to {folder}: {why}. Choose another folder: --out FOLDER")


def check_writable_if_unfinished(folder: Path) -> None:
    """Raise like `check_writable` unless the folder is complete: a finished run on read-only media can be read."""
    if not os.path.isfile(folder / artifacts.MANIFEST):  # noqa: PTH113 (a Path raises where it may not look)
        check_writable(folder)


def reopened(folder: Path, settings: Config, kind: str) -> bool:
    """Return whether a finished folder has to go on, because settings differ that keep its finished parts."""
    if not settings.reusable or not differences(folder / record_name(kind), settings):
        return False
    check_writable(folder)
    (folder / artifacts.MANIFEST).unlink()
    return True


@contextlib.contextmanager
def claimed(folder: Path, settings: Config, kind: str) -> Iterator[None]:
    """Work in `folder`: the record of the settings is written before the first other file.

    If a `UserError` is raised before there is a result, the written files are removed.
    """
    file = folder / record_name(kind)
    _clear(folder, but=file.name)
    fresh, first_of_all = not entries(folder), not folder.parent.exists()
    if distributed.is_main():
        artifacts.remove_abandoned(folder)

    try:
        with artifacts.before_first_write(folder, lambda: write_record(folder, settings, kind)):
            yield
    except UserError:
        if fresh and holds(folder) and not has_results(folder) and not has_failed_step(folder):
            artifacts.remove(folder)
            if first_of_all:
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()  # runs/, unless another run has begun there meanwhile
        raise


def write_record(folder: Path, settings: Config, kind: str) -> None:
    """Write the settings that a folder belongs to, unless it has them."""
    file = folder / record_name(kind)
    if not file.is_file() or differences(file, settings):
        artifacts.write_text(file, yaml.safe_dump(settings.to_json(), sort_keys=False, allow_unicode=True))


def _clear(folder: Path, *, but: str) -> None:
    """Remove what a start without a result left, unless anything else lies there."""
    names = entries(folder)
    if names <= LEFT_OVER | {but}:
        for name in (names & LEFT_OVER) - {but}:
            (folder / name).unlink()


def differences(file: Path, settings: Config, *, reused: bool = False) -> list[str]:
    """Return the differences between the settings of a file and these: "train.epochs is 5 there, 6 here".

    Settings that are missing in the file, because they are newer, have their defaults. reused: without the settings
    that can change while finished parts are kept, and without the paths that changed with the run that `file` is in.
    """
    recorded = read_yaml(file)
    try:
        recorded = build(type(settings), recorded).to_json()
    except ConfigError as error:
        return [str(error)]
    here, there = dict(_flat(settings.to_json())), dict(_flat(recorded))
    keys = [key for key in {**there, **here} if here.get(key) != there.get(key)]
    if reused:
        keys = [key for key in keys if key.partition(".")[0] not in settings.reusable]
        keys = [key for key in keys if not _moved(file.parent, there.get(key), here.get(key))]
    return [f"{key} is {_shown(there.get(key))} there, {_shown(here.get(key))} here" for key in keys]


def _moved(folder: Path, there: Any, here: Any) -> bool:
    """Return whether two paths name the same part of the run that `folder` is a part of, which was moved or copied.

    What the part computes is compared by the part itself, by its digest.
    """
    if not (isinstance(there, str) and isinstance(here, str)):
        return False
    runs = [place for place in folder.parents if (place / JOURNAL).is_file()]
    parts = [Path(here).relative_to(run) for run in runs if Path(here).is_relative_to(run)]
    return any(part.parts and Path(there).parts[-len(part.parts) :] == part.parts for part in parts)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

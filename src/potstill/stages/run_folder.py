"""The folder of a run: whose it is, what its stages took and what was told, over all the calls that a run takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from potstill import artifacts, progress
from potstill.config import Config, build, read_yaml
from potstill.errors import ConfigError, RunError

T = TypeVar("T")

GO_ON = {"run": "run", "compare": "compare", "selftrain": "selftrain"}
"""The kinds of work that a recipe starts, and the command that goes on with them."""


class Journal:
    """What a run took and told: the stages in their order, their seconds, and every note, earlier calls included."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "journal.json"
        earlier = artifacts.read_json(self._file) if self._file.is_file() else {"seconds": {}, "notes": []}
        self._spent: dict[str, float] = earlier["seconds"]
        self._told: list[str] = earlier["notes"]
        self.stages: list[dict[str, Any]] = []

    def timed(self, name: str, text: str, work: Callable[[], T]) -> T:
        """Do `work` and add what it took to what an interrupted call has spent on it."""
        began = time.monotonic()
        try:
            return work()
        finally:
            key = f"{name}: {text}"
            self._spent[key] = round(self._spent.get(key, 0.0) + time.monotonic() - began, 2)
            artifacts.write_json(self._file, {"seconds": self._spent, "notes": self.notes})
            self.stages.append({"name": name, "title": text, "seconds": self._spent[key]})

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return round(sum(stage["seconds"] for stage in self.stages), 1)

    @property
    def notes(self) -> list[str]:
        """What was told, each sentence once."""
        return list(dict.fromkeys([*self._told, *progress.display().notes]))


def record(kind: str) -> str:
    """Return the name of the file in which a folder keeps the settings of its work."""
    return "recipe.yaml" if kind in GO_ON else f"{kind}.yaml"


def claim(folder: Path, settings: Config, *, kind: str = "run") -> None:
    """Make `folder` the place of this work; raise `RunError` where it holds something else.

    kind: the command: run, compare, selftrain, finetune, label, prune, quantize or export.
    """
    file = folder / record(kind)
    if not file.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder} exists and holds something else. Choose a new folder with --out.")
        artifacts.write_text(file, yaml.safe_dump(settings.to_json(), sort_keys=False, allow_unicode=True))
        return
    other = differences(file, settings)
    if other:
        more = f", and {len(other) - 1} more" if len(other) > 1 else ""
        hint = f", or go on with that one: potstill {GO_ON[kind]} {file} --out {folder}" if kind in GO_ON else ""
        raise RunError(
            f"{folder} was made with other settings: {other[0]}{more} (see {file}). "
            f"Choose a new folder with --out{hint}."
        )


def differences(file: Path, settings: Config) -> list[str]:
    """Return in what the settings of a file and these differ: "train.epochs is 5 there, 6 here".

    A setting that the file does not have, for it is newer, has its default.
    """
    there = read_yaml(file)
    try:
        there = build(type(settings), there).to_json()
    except ConfigError as error:
        return [str(error)]
    mine, theirs = dict(_flat(settings.to_json())), dict(_flat(there))
    keys = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
    return [f"{key} is {_shown(theirs.get(key))} there, {_shown(mine.get(key))} here" for key in keys]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

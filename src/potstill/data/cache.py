"""What may be thrown away at any time: facts and pixels that were computed once from files of the user.

Everything under `cache_folder` can be made again from the images; a damaged or missing part is made again in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from potstill.artifacts import write_text
from potstill.errors import UserError
from potstill.progress import note

Place = tuple[str, str]  # folder or archive, and a name in it
State = tuple[int, int]  # size in bytes, and time of change


def cache_folder() -> Path:
    """Return where cached things lie: $POTSTILL_CACHE, or ~/.cache/potstill."""
    return Path(os.environ.get("POTSTILL_CACHE") or Path.home() / ".cache" / "potstill").expanduser()


class Remembered:
    """JSON values by (folder or archive, name in it, size, time of change) of files.

    They are kept in one file for each folder, so that they are found again from whichever list or level of the tree
    the images are read. version: of what computes the values; values of another version are forgotten.
    """

    def __init__(self, kind: str, version: int) -> None:
        self.kind, self.version = kind, version
        self._values: dict[str, dict[str, list[Any]]] = {}
        self._changed: set[str] = set()

    def get(self, place: Place, state: State) -> Any | None:
        """Return the value of a file, None where it is unknown or the file's (size, time of change) is another."""
        folder, name = place
        if folder not in self._values:
            self._values[folder] = self._read(folder)
        size, time, value = self._values[folder].get(name, (None, None, None))
        return value if (size, time) == state else None

    def put(self, place: Place, state: State, value: Any) -> None:
        """Keep a value for a file in this state; `get` was asked for it before."""
        folder, name = place
        self._values[folder][name] = [*state, value]
        self._changed.add(folder)

    def save(self) -> None:
        """Write what was put; a cache that cannot be written is told of, and only costs time."""
        try:
            for folder in sorted(self._changed):
                write_text(self._file(folder), json.dumps(self._values[folder], separators=(",", ":")))
            self._changed.clear()
        except (UserError, OSError) as error:
            note(f"What was learned about the images could not be kept for the next time: {error}")

    def _file(self, folder: str) -> Path:
        key = hashlib.sha256(f"{self.version}\0{Path(folder).resolve()}".encode()).hexdigest()[:24]
        return cache_folder() / self.kind / f"{key}.json"

    def _read(self, folder: str) -> dict[str, list[Any]]:
        try:
            return json.loads(self._file(folder).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

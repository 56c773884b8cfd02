"""The cache: facts and pixels computed once from the user's files, which may be deleted at any time.

Everything under `cache_folder` can be recomputed from the images; a damaged or missing part is recomputed silently.
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
State = tuple[int, int]  # size in bytes, and modification time


def cache_folder() -> Path:
    """Return the cache folder: $POTSTILL_CACHE, or ~/.cache/potstill."""
    return Path(os.environ.get("POTSTILL_CACHE") or Path.home() / ".cache" / "potstill").expanduser()


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

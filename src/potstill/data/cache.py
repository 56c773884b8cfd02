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


def cache_folder() -> Path:
    """Return where cached things lie: $POTSTILL_CACHE, or ~/.cache/potstill."""
    return Path(os.environ.get("POTSTILL_CACHE") or Path.home() / ".cache" / "potstill").expanduser()


class Remembered:
    """JSON values by (file name, size, time of change) for the files of one folder or archive.

    version: of what computes the values; values of another version are forgotten.
    """

    def __init__(self, root: Path, kind: str, version: int) -> None:
        key = hashlib.sha256(f"{kind}\0{version}\0{root.resolve()}".encode()).hexdigest()[:24]
        self.file = cache_folder() / kind / f"{key}.json"
        self.changed = False
        try:
            self.values: dict[str, list[Any]] = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.values = {}

    def get(self, name: str, state: tuple[int, int]) -> Any | None:
        """Return the value of a file, None where it is unknown or the file's (size, time of change) is another."""
        size, time, value = self.values.get(name, (None, None, None))
        return value if (size, time) == state else None

    def put(self, name: str, state: tuple[int, int], value: Any) -> None:
        """Keep a value for a file in this state."""
        self.values[name] = [*state, value]
        self.changed = True

    def save(self) -> None:
        """Write what was put; a cache that cannot be written is told of, and only costs time."""
        if not self.changed:
            return
        try:
            write_text(self.file, json.dumps(self.values, separators=(",", ":")))
            self.changed = False
        except (UserError, OSError) as error:
            note(f"What was learned about the images could not be kept for the next time: {error}")

"""Sources of encoded images: the bytes of image files in folders, archives or memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.cache import Place, State
from potstill.data.decode import ImageError, decode, read_bytes


class Encoded:
    """A `Source` of encoded image files. `origin` is the path that the user gave: a folder, an archive, a table."""

    origin: Path
    names: Sequence[str]

    def content(self, row: int) -> bytes:
        """Return the bytes of an image file; raise `DataError` if they cannot be read."""
        raise NotImplementedError

    def place(self, row: int) -> Place:
        """Return the folder or archive that holds the content, and its name there."""
        raise NotImplementedError

    def state(self, row: int) -> State | None:
        """Return (size, modification time), which detect changes of the content; None if unknown."""
        raise NotImplementedError

    def only(self, rows: Sequence[int]) -> Encoded:
        """Return a source of these rows only."""
        raise NotImplementedError

    def path(self, row: int) -> str:
        """Return the path of an image, for messages."""
        return str(self.origin / self.names[row])

    def image(self, row: int) -> np.ndarray:
        """Return uint8 [H, W, C]."""
        return decode(self.content(row), name=self.path(row))

    def digest(self, row: int) -> bytes:
        """Return the sha256 of the file's bytes."""
        return hashlib.sha256(self.content(row)).digest()


@dataclass(frozen=True)
class Files(Encoded):
    """Image files under a folder; `names` are paths relative to `origin`, or absolute."""

    origin: Path
    names: Sequence[str]

    def content(self, row: int) -> bytes:
        return read_bytes(self.origin / self.names[row], name=self.path(row))

    def place(self, row: int) -> Place:
        return os.path.split(os.path.join(self.origin, self.names[row]))  # noqa: PTH118 (a million Paths are slow)

    def state(self, row: int) -> State | None:
        try:
            stat = os.stat(os.path.join(self.origin, self.names[row]))  # noqa: PTH116, PTH118 (see place)
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns

    def only(self, rows: Sequence[int]) -> Files:
        return Files(self.origin, [self.names[row] for row in rows])


@dataclass(frozen=True)
class Members(Encoded):
    """Members of uncompressed tar files, read in place; `places` are (file, first byte, size) of each."""

    origin: Path
    names: Sequence[str]
    places: Sequence[tuple[Path, int, int]]
    changed: int  # modification time of the newest archive

    def content(self, row: int) -> bytes:
        file, start, size = self.places[row]
        try:
            with file.open("rb", buffering=0) as handle:
                handle.seek(start)
                content = handle.read(size)
        except OSError as error:
            raise ImageError("missing", f"{file} cannot be read: {error.strerror or error}.") from error
        if len(content) < size:
            raise ImageError("damaged", f"{self.path(row)} is truncated: the archive ends within it.")
        return content

    def place(self, row: int) -> Place:
        file, start, _ = self.places[row]
        return str(file), str(start)

    def state(self, row: int) -> State:
        return self.places[row][2], self.changed

    def only(self, rows: Sequence[int]) -> Members:
        chosen = [self.names[row] for row in rows], [self.places[row] for row in rows]
        return Members(self.origin, *chosen, self.changed)


@dataclass(frozen=True)
class Held(Encoded):
    """Encoded image files in memory, as read from a table."""

    origin: Path
    names: Sequence[str]
    contents: Sequence[bytes]

    def content(self, row: int) -> bytes:
        return self.contents[row]

    def place(self, row: int) -> Place:
        return str(self.origin), self.names[row]

    def state(self, row: int) -> None:
        return None

    def only(self, rows: Sequence[int]) -> Held:
        return Held(self.origin, [self.names[row] for row in rows], [self.contents[row] for row in rows])

"""Image files under a folder: which of them count, in which order, and as a `Source`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from potstill.data.decode import decode, read_bytes
from potstill.progress import note

ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .avif .heic .heif .jp2 .j2k "
    ".tga .pcx .qoi .ico .dds .sgi".split()
)
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "$recycle.bin"})


@dataclass(frozen=True)
class Files:
    """A `Source` of image files; `names` are paths relative to `root` (or absolute)."""

    root: Path
    names: Sequence[str]

    def image(self, row: int) -> np.ndarray:
        return decode(self.root / self.names[row], name=str(self.root / self.names[row]))

    def digest(self, row: int) -> bytes:
        path = self.root / self.names[row]
        return hashlib.sha256(read_bytes(path, name=str(path))).digest()

    def only(self, rows: Sequence[int]) -> Files:
        return Files(self.root, [self.names[row] for row in rows])


def natural(name: str) -> tuple:
    """Return a sort key that puts class2 before class10."""
    parts = re.split(r"(\d+)", name)
    return (*[(int(p), "") if i % 2 else (-1, p.casefold()) for i, p in enumerate(parts)], (-1, name))


def is_image_name(name: str) -> bool:
    """Tell whether a file is an image by the ending of its name."""
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 (a million Paths are slow)


def is_junk(name: str) -> bool:
    """Tell whether a name is one that other programs leave behind, or hidden."""
    return name.startswith(".") or name.lower() in _JUNK


@dataclass
class Folder:
    """A folder as it lies on disk: images by name, and folders, both in natural order; junk is left out."""

    name: str
    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        """Yield every image here and below, as a path relative to this folder."""
        yield from self.images
        for folder in self.folders:
            yield from (f"{folder.name}/{image}" for image in folder)

    @property
    def empty(self) -> bool:
        return next(iter(self), None) is None


def scan(root: Path) -> Folder:
    """Return what lies in a folder; say once which junk and which other files were left out."""
    junk: dict[str, None] = {}
    others: list[str] = []
    folder = _scan(root, root.name, junk, others, frozenset({root.resolve()}))
    if junk:
        note(f"{root}: ignored what other programs left there: {_some(list(junk))}.")
    if others:
        note(f"{root}: ignored {len(others)} file(s) whose names do not end like an image's: {_some(others)}.")
    return folder


def _scan(path: Path, name: str, junk: dict[str, None], others: list[str], above: frozenset[Path]) -> Folder:
    folder = Folder(name)
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: natural(entry.name))
    for entry in entries:
        if is_junk(entry.name):
            junk[entry.name] = None
        elif entry.is_dir():
            below = Path(entry.path).resolve() if entry.is_symlink() else path / entry.name
            if below not in above:  # a link to a folder above itself
                folder.folders.append(_scan(Path(entry.path), entry.name, junk, others, above | {below}))
        elif is_image_name(entry.name):
            folder.images.append(entry.name)
        else:
            others.append(entry.name)
    return folder


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest

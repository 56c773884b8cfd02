"""Folders of files: which files are images, their order, and which files are ignored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from potstill.errors import DataError
from potstill.words import plural

ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .avif .heic .heif .jp2 .j2k "
    ".tga .pcx .qoi .ico .dds .sgi".split()
)
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "$recycle.bin"})


def natural(name: str) -> tuple:
    """Return a sort key that puts class2 before class10."""
    parts = re.split(r"(\d+)", name)
    return (*[(int(p), "") if i % 2 else (-1, p.casefold()) for i, p in enumerate(parts)], (-1, name))


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names, class2 before class10."""
    return sorted(set(names), key=natural)


def is_image_name(name: str) -> bool:
    """Whether a file is an image, by its extension."""
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 (a million Paths are slow)


def is_junk(name: str) -> bool:
    """Whether a name is that of a system file of other programs, or hidden."""
    return name.startswith(".") or name.lower() in _JUNK


@dataclass
class Left:
    """What is ignored: paths of system files, of pipes and devices, and of files without an image extension."""

    junk: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def sentences(self, root: str | Path) -> Iterator[str]:
        """Yield a note for each kind."""
        if self.junk:
            names = in_natural_order(path.rsplit("/", 1)[-1] for path in self.junk)
            yield f"{root}: ignored system or hidden files: {some(names)}."
        if self.special:
            yield f"{root}: ignored what is no regular file (pipes, devices, loops of links): {some(self.special)}."
        if self.others:
            count = plural(len(self.others), "file")
            yield f"{root}: ignored {count} without an image extension: {some(self.others)}."


@dataclass
class Folder:
    """A folder on disk or in an archive: names of images, and folders, both in natural order."""

    name: str
    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        """Yield every image in this folder and its subfolders, as a path relative to this folder."""
        yield from self.images
        for folder in self.folders:
            yield from (f"{folder.name}/{image}" for image in folder)


def scan(root: Path) -> tuple[Folder, Left]:
    """Return the tree of a folder on disk; links are followed."""
    left = Left()
    return _scan(root, root.name, "", left, frozenset({root.resolve()})), left


def _scan(path: Path, name: str, inside: str, left: Left, above: frozenset[Path]) -> Folder:
    folder = Folder(name)
    try:
        with os.scandir(path) as iterator:
            entries = sorted(iterator, key=lambda entry: natural(entry.name))
    except OSError as error:
        raise DataError(f"The folder {path} cannot be read: {error.strerror}. Change its permissions.") from None
    for entry in entries:
        if is_junk(entry.name):
            left.junk.append(inside + entry.name)
        elif (kind := _kind(entry)) == "folder":
            below = Path(entry.path).resolve() if entry.is_symlink() else path / entry.name
            if below not in above:  # else it is a link to one of its own parents
                deeper = _scan(Path(entry.path), entry.name, f"{inside}{entry.name}/", left, above | {below})
                folder.folders.append(deeper)
        elif kind == "special":
            left.special.append(inside + entry.name)
        elif is_image_name(entry.name):
            folder.images.append(entry.name)
        else:
            left.others.append(inside + entry.name)
    return folder


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" (also a link to nothing, a file that is missing) or "special"."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists()) else "special"
    except OSError:  # a loop of links
        return "special"


def tree_of(name: str, paths: Iterable[str]) -> tuple[Folder, Left]:
    """Return the same for a list of paths, such as the members of an archive."""
    top, left, seen = Folder(name), Left(), {}
    for path in sorted(paths, key=natural):
        parts = path.split("/")
        if any(is_junk(part) for part in parts):
            left.junk.append(path)
        elif is_image_name(parts[-1]):
            _folder_at(top, tuple(parts[:-1]), seen).images.append(parts[-1])
        else:
            left.others.append(path)
    return top, left


def _folder_at(top: Folder, parts: tuple[str, ...], seen: dict[tuple[str, ...], Folder]) -> Folder:
    if not parts:
        return top
    if parts not in seen:
        seen[parts] = Folder(parts[-1])
        _folder_at(top, parts[:-1], seen).folders.append(seen[parts])
    return seen[parts]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names as text, and the number of the others."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest

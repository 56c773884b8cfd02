"""Files that could hang a command or fill the memory: pipes and devices, and archives that unpack to far too much."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from potstill.errors import DataError
from potstill.words import file_size

RATIO = 100  # unpacked to packed size, above which an archive of more than `SMALL` bytes is refused
SMALL = 64 * 2**20
MOST_IN_MEMORY = 2**30
_OPEN = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".tbz2": bz2.open, ".xz": lzma.open, ".txz": lzma.open}
_CHUNK = 2**22


def regular(file: Path) -> Path:
    """Return the path of a regular file, links followed; raise `DataError` for a pipe, a device or a socket."""
    if file.exists() and not file.is_file():
        raise DataError(
            f"{file} is not a regular file but a {'folder' if file.is_dir() else 'pipe, device or socket'}. Give "
            "another path."
        )
    return file


def is_compressed(file: Path) -> bool:
    """Whether a file is compressed as a whole, by its name."""
    return file.suffix.lower() in _OPEN


def unpacked(file: Path, *, most: int | None = None) -> Iterator[bytes]:
    """Yield the unpacked content of a .gz, .bz2 or .xz file in parts.

    most: bytes beyond which it is refused in any case. Raises `DataError` if the file is damaged, or unpacks to more
    than `RATIO` times its size.
    """
    packed = regular(file).stat().st_size
    limit = max(SMALL, RATIO * packed)
    limit = limit if most is None else min(limit, most)
    size = 0
    with _OPEN[file.suffix.lower()](file, "rb") as handle:
        while part := _read(handle, file):
            size += len(part)
            if size > limit:
                raise _bomb(file, packed, f"more than {file_size(limit)}")
            yield part


def _read(handle: Any, file: Path) -> bytes:
    try:
        return handle.read(_CHUNK)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{file} is damaged or truncated: {error}. Download or copy it again.") from None


def unpack(file: Path, out: IO[bytes], *, folder: Path) -> None:
    """Write the unpacked content of a file; raise `DataError` as `unpacked`, or if `folder` has no room for it."""
    room = shutil.disk_usage(folder).free
    for part in unpacked(file, most=room):
        out.write(part)


def check_zip(file: Path) -> None:
    """Raise `DataError` if the members of a zip file (.npz) unpack to far more than its size, before one is read."""
    packed = regular(file).stat().st_size
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > max(SMALL, RATIO * packed):
        raise _bomb(file, packed, file_size(size))


def _bomb(file: Path, packed: int, size: str) -> DataError:
    return DataError(
        f"{file} ({file_size(packed)}) unpacks to {size}, which would fill memory or disk, so it was not unpacked "
        "further. If it is what you expect, unpack it yourself and give the result."
    )

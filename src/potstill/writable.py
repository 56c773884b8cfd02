"""Whether files can be written at a place, found out before the work whose results are to lie there."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path


def obstacle(folder: Path) -> str:
    """Return why no files can be written into a folder, which need not exist; "" if they can.

    Nothing is made. Permissions alone do not tell: a read-only file system and /proc refuse the superuser too, so a
    temporary file is opened in the folder, or in the nearest one above it that exists.
    """
    try:
        place = next(place for place in (folder, *folder.parents) if _exists(place))
        if not place.is_dir():
            return f"{place} is not a folder"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"no file can be made in {place} ({error.strerror})"


def _exists(path: Path) -> bool:
    """Return whether something is at a path, also a link to nothing; raise `OSError` if that cannot be known."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return False
    return True

"""Names that become paths, checked by one type for all sources: recipes, flags and files.

A name determines the name of a folder, never its location. `SafeName` is the type of such a name in a `Config`;
`inside` resolves a path from a JSON file; `fitting` converts any text to a safe name.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

from potstill.errors import ConfigError, RunError

LONGEST = 100  # characters; file systems allow 255 bytes, and potstill appends to some names
LONGEST_PATH = 1000  # characters of a path inside a folder
_SAFE = re.compile(r"\w[\w.+-]*")


def problem(name: str) -> str:
    """Return why a text cannot be the name of a folder, with a suggestion; "" if it can."""
    if _SAFE.fullmatch(name) and len(name) <= LONGEST and not name.endswith("."):
        return ""
    return (
        f"{name!r} is used as the name of a folder. It must begin with a letter or digit, consist of letters, digits, "
        f"'.', '-', '+' and '_', and have at most {LONGEST} characters. Use {fitting(name)!r}, for example."
    )


def fitting(text: str) -> str:
    """Return the safe name closest to a text: "photos (1)" becomes "photos-1"; "unnamed" if nothing is left."""
    joined = re.sub(r"-{2,}", "-", re.sub(r"[^\w.+-]+", "-", text))
    return joined.lstrip(".+-")[:LONGEST].rstrip(".-") or "unnamed"


def _checked(name: str) -> str:
    if reason := problem(name):
        raise ValueError(reason)
    return name


SafeName = Annotated[str, AfterValidator(_checked)]
"""A text that may be the name of a folder or file; other text is refused with an error."""


def check(name: str, *, key: str) -> str:
    """Return `name`; raise `ConfigError` if it is unsafe. key: the setting or flag it comes from."""
    if reason := problem(name):
        raise ConfigError(f"{key}: {reason}")
    return name


def inside(folder: Path, relative: object, *, origin: Path) -> Path:
    """Return `folder` / `relative` for a path read from a file; raise `RunError` if it leads outside.

    relative: the value in the file, of any type. origin: the file, for the message. The user's links inside the folder
    are followed; absolute paths, drives and ".." are refused.
    """
    if isinstance(relative, str) and relative and "\0" not in relative and len(relative) <= LONGEST_PATH:
        path, windows = PurePosixPath(relative), PureWindowsPath(relative)
        outside = path.is_absolute() or windows.drive or windows.root or ".." in {*path.parts, *windows.parts}
        if not outside and all(len(part) <= LONGEST for part in path.parts):
            return folder / path
    shown = repr(relative)
    raise RunError(
        f"{origin} holds the path {shown[:LONGEST]}{'...' * (len(shown) > LONGEST)}, which is not inside {folder}, or "
        "has a name that is too long. potstill does not write such paths: the "
        "file is damaged or was changed. Give the folder of the stage itself, or run its command again."
    )

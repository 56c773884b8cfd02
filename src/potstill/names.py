"""Names that become paths, checked by one type wherever they come from: a recipe, a flag, a file that was sent.

A name decides what a folder is called, never where it lies. `SafeName` is the type of such a name in a `Config`;
`inside` is the way to follow a path that a JSON file holds; `fitting` makes a safe name of any text.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

from potstill.errors import ConfigError, RunError

LONGEST = 100  # characters; file systems allow 255 bytes, and potstill appends to some names
_SAFE = re.compile(r"\w[\w.+-]*")


def problem(name: str) -> str:
    """Return why a text cannot be the name of a folder, in a sentence with a name that can; "" where it can."""
    if _SAFE.fullmatch(name) and len(name) <= LONGEST and not name.endswith("."):
        return ""
    return (
        f"{name!r} becomes the name of a folder. It must begin with a letter or digit, consist of letters, digits, "
        f"'.', '-', '+' and '_', and have at most {LONGEST} characters. Write {fitting(name)!r}, for instance."
    )


def fitting(text: str) -> str:
    """Return the safe name that is nearest to any text: "photos (1)" becomes "photos-1"; "unnamed" where none is."""
    joined = re.sub(r"-{2,}", "-", re.sub(r"[^\w.+-]+", "-", text))
    return joined.lstrip(".+-")[:LONGEST].rstrip(".-") or "unnamed"


def _checked(name: str) -> str:
    if told := problem(name):
        raise ValueError(told)
    return name


SafeName = Annotated[str, AfterValidator(_checked)]
"""A text that may become the name of one folder or file; anything else is refused with a sentence."""


def check(name: str, *, key: str) -> str:
    """Return `name`; raise `ConfigError` where it is unsafe. key: the setting or flag that gave it."""
    if told := problem(name):
        raise ConfigError(f"{key}: {told}")
    return name


def inside(folder: Path, relative: object, *, origin: Path) -> Path:
    """Return `folder` / `relative` for a path that a file holds; raise `RunError` where it would lead outside.

    relative: what the file holds, of any type. origin: the file, for the message. Links that the user made inside the
    folder are followed; absolute paths, drives and ".." are refused.
    """
    if isinstance(relative, str) and relative and "\0" not in relative:
        path, windows = PurePosixPath(relative), PureWindowsPath(relative)
        if not (path.is_absolute() or windows.drive or windows.root or ".." in {*path.parts, *windows.parts}):
            return folder / path
    raise RunError(
        f"{origin} names {relative!r}, which does not lie inside {folder}. potstill does not write such a file: it is "
        "damaged or was changed. Give the folder of the stage itself, or make it again with the command that made it."
    )

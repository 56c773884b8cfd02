"""Output files named by a flag (`--html`, `--sheet`, `--fix`): overwritten only if potstill wrote them.

Pages and images contain a mark by which they are recognised. Tables have none, because other programs read them and
users edit them: an existing table is never replaced without `--force`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from potstill.errors import RunError
from potstill.words import argument
from potstill.writable import obstacle

GENERATOR = '<meta name="generator" content="potstill">'
"""Part of the head of every page written by potstill."""
SOFTWARE = ("Software", "potstill")
"""The text chunk of every PNG written by potstill for a flag."""
_ENDINGS = {"--sheet": ".png", "--fix": ".csv"}
_HEAD = 4096  # bytes that are read
_PNG = b"\x89PNG\r\n\x1a\n"


def check_outputs(files: Mapping[str, str | Path | None], *, force: bool = False) -> None:
    """Raise `RunError` with all problems of the files that options name, such as {"--html": "page.html"}.

    A file must be writable, have the ending of what is written, and if it exists be one that potstill wrote; with
    `force` any file is replaced. None: not given. To be called before the work, so that a failed command leaves nothing
    behind.
    """
    given = {flag: Path(file) for flag, file in files.items() if file is not None}
    problems = [
        _place_problem(file, flag) or _content_problem(file, flag, force) or _name_problem(file, flag)
        for flag, file in given.items()
    ]
    if any(problems):
        raise RunError(*filter(None, problems))


def check_place(file: Path, flag: str) -> None:
    """Raise `RunError` if no file of this name can be written, whatever it holds now."""
    if problem := _place_problem(file, flag):
        raise RunError(problem)


def _place_problem(file: Path, flag: str) -> str:
    if why := obstacle(file.parent):
        return f"{flag} {file}: {why}. Choose another place, for example: {flag} {_example(flag)}"
    try:
        file.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:  # a name that is too long, a loop of links
        return f"{flag} {file}: {error.strerror}. Choose another name, for example: {flag} {_example(flag)}"
    return ""


def _name_problem(file: Path, flag: str) -> str:
    ending = _ENDINGS.get(flag, "")
    if not ending or file.suffix.lower() == ending:
        return ""
    return f"{flag} {file}: the name must end with {ending}. Type: {flag} {argument(file.with_suffix(ending))}"


def _content_problem(file: Path, flag: str, force: bool) -> str:
    if file.is_dir():
        inside = argument(file / _example(flag))
        return f"{flag} {file}: this is a folder. Give the name of a file in it: {flag} {inside}"
    if file.exists() and not file.is_file():
        return f"{flag} {file}: this exists and is not a regular file. Choose another name."
    if not force and file.exists() and not is_ours(file):
        return (
            f"{flag} {file}: this file exists and was not recognised as written by potstill, so it was not changed. "
            "Choose another name, or add --force to replace it."
        )
    return ""


def _example(flag: str) -> str:
    return {
        "--sheet": "augmented.png",
        "--fix": "clean.csv",
        "--csv": "answers.csv",
        "--label-errors": "label-errors.csv",
        "--device-profile": "board.json",
    }.get(flag, "page.html")


def is_ours(file: Path) -> bool:
    """Whether a page or a PNG contains the mark of potstill; only its first bytes are read."""
    with file.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.startswith(_PNG):
        return _software(head) == SOFTWARE[1].encode()
    return head.lstrip()[:9].lower() == b"<!doctype" and GENERATOR.encode() in head


def _software(head: bytes) -> bytes | None:
    """Return the text of the first `Software` chunk before the pixels."""
    place = len(_PNG)
    while place + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, place)
        content = head[place + 8 : place + 8 + length]
        if kind == b"tEXt" and content.startswith(SOFTWARE[0].encode() + b"\0"):
            return content.partition(b"\0")[2]
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None

"""Output files named by a flag (`--html`, `--sheet`, `--fix`): overwritten only if potstill wrote them.

Pages and images contain a mark by which they are recognised. Tables have none, because other programs read them and
users edit them: an existing table is never replaced without `--force`.
"""

from __future__ import annotations

import struct
from pathlib import Path

from potstill.errors import RunError
from potstill.words import argument

GENERATOR = '<meta name="generator" content="potstill">'
"""Part of the head of every page written by potstill."""
SOFTWARE = ("Software", "potstill")
"""The text chunk of every PNG written by potstill for a flag."""
_HEAD = 4096  # bytes that are read
_PNG = b"\x89PNG\r\n\x1a\n"


def check_output(file: Path, *, flag: str, force: bool = False) -> None:
    """Raise `RunError` if `file` exists and was not written by potstill, or cannot be a file.

    flag: the option that names it, such as "--html". force: replace any existing file. To be called before the work, so
    that errors come early.
    """
    if file.is_dir():
        raise RunError(
            f"{flag} {file}: this is a folder. Give the name of a file in it: {flag} {argument(file / _example(flag))}"
        )
    if file.exists() and not file.is_file():
        raise RunError(f"{flag} {file}: this exists and is not a regular file. Choose another name.")
    if not force and file.exists() and not is_ours(file):
        raise RunError(
            f"{flag} {file}: this file exists and was not recognised as written by potstill, so it was not changed. "
            "Choose another name, or add --force to replace it."
        )


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

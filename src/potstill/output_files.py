"""Files that a flag names (`--html`, `--sheet`, `--fix`): written over only where potstill wrote them before.

A page and a picture carry a mark by which they are recognised. A table carries none, because other programs read it and
people correct it: an existing one is never replaced without `--force`.
"""

from __future__ import annotations

import struct
from pathlib import Path

from potstill.errors import RunError

GENERATOR = '<meta name="generator" content="potstill">'
"""Stands in the head of every page that potstill writes."""
SOFTWARE = ("Software", "potstill")
"""The text chunk of every PNG that potstill writes for a flag."""
_HEAD = 4096  # bytes that are looked at
_PNG = b"\x89PNG\r\n\x1a\n"


def check_output(file: Path, *, flag: str, force: bool = False) -> None:
    """Raise `RunError` where `file` exists and is not one that potstill wrote, or cannot be a file at all.

    flag: the option that names it, such as "--html". force: the user wants any existing file replaced. Call it before
    the work, so that nobody waits for a refusal.
    """
    if file.is_dir():
        raise RunError(
            f"{flag} {file}: this is a folder. Give the name of a file in it: {flag} {file / _example(flag)}"
        )
    if file.exists() and not file.is_file():
        raise RunError(f"{flag} {file}: this is neither a file nor free. Give another name.")
    if not force and file.exists() and not is_ours(file):
        raise RunError(
            f"{flag} {file}: this file exists, and potstill cannot tell that it wrote it. It was left as it is. Give "
            f"another name, or add --force to replace it."
        )


def _example(flag: str) -> str:
    return {"--sheet": "augmented.png", "--fix": "clean.csv"}.get(flag, "page.html")


def is_ours(file: Path) -> bool:
    """Tell whether a page or a PNG carries the mark of potstill; only its first bytes are looked at."""
    with file.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.startswith(_PNG):
        return _software(head) == SOFTWARE[1].encode()
    return head.lstrip()[:9].lower() == b"<!doctype" and GENERATOR.encode() in head


def _software(head: bytes) -> bytes | None:
    """Return the text of the first chunk of that name among those before the pixels."""
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

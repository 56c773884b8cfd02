"""How images are left out of data: by a table, which only lists files of a folder, or when the data are made."""

from __future__ import annotations

from potstill.data.formats.sources import Files
from potstill.data.manifest import Source
from potstill.words import argument


def leave_out(source: Source, root: str, *, table: str = "") -> str:
    """Return "leave them out: COMMAND", or how else. table: what is said behind the command, if that is possible."""
    if isinstance(source, Files):
        return f"leave them out: potstill check {argument(root)} --fix clean.csv{table}"
    return "leave them out when the archive or array is made"

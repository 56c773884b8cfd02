"""Text that comes from data (class names, file names, other people's models), made fit for a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters (a terminal obeys them), marks that reverse the direction of text, and halves of characters
# (file names that are not UTF-8), which cannot be printed.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return a text with what a terminal would obey written out, such as \x1b for an escape; lines and tabs stay."""
    return _OBEYED.sub(lambda found: _written_out(ord(found[0])), text)


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def as_json(value: Any) -> str:
    """Return indented JSON; the characters that `visible` writes out are JSON escapes, which readers undo."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

"""Python for the users of an exported file, which needs numpy, pillow and onnxruntime and nothing of potstill.

One text each: what is shown and travels with a file is what the tests execute.
"""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = Path(__file__).parent
NEEDS, VERIFY = "numpy pillow onnxruntime", "verify.py"


def use(file: Path | str, photo: str = "photo.jpg") -> str:
    """Return the lines that classify a photo with an ONNX file which takes photos."""
    text = (TEXTS / "use.py.txt").read_text(encoding="utf-8")
    return text.format(file=_quoted(str(file)), photo=_quoted(photo))


def _quoted(text: str) -> str:
    """Return a string literal in double quotes, as formatters write it."""
    return json.dumps(text, ensure_ascii=False)


def verify() -> str:
    """Return the script that checks exported files on their golden images (`exporters.golden`)."""
    return (TEXTS / "verify.py.txt").read_text(encoding="utf-8")

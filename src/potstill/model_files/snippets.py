"""Python for the users of an exported file, which needs numpy, pillow and onnxruntime and nothing of potstill.

One text each: what is shown and travels with a file is what the tests execute.
"""

from __future__ import annotations

from pathlib import Path

TEXTS = Path(__file__).parent
NEEDS, VERIFY = "numpy pillow onnxruntime", "verify.py"


def use(file: Path | str, photo: str = "photo.jpg") -> str:
    """Return the lines that classify a photo with an ONNX file which takes photos."""
    text = (TEXTS / "use.py.txt").read_text(encoding="utf-8")
    return text.format(file=repr(str(file)), photo=repr(photo))


def verify() -> str:
    """Return the script that checks exported files on their golden images (`exporters.golden`)."""
    return (TEXTS / "verify.py.txt").read_text(encoding="utf-8")

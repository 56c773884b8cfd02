"""Damage to files, and a run of a few seconds that it is done to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import potstill

SETTINGS: dict[str, Any] = {
    "teacher": "builtin:mlp",
    "student": "builtin:mlp",
    "teacher_epochs": 1,
    "epochs": 1,
    "seeds": 1,
    "export": {"calibration": 8},
}


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Cut the last tenth off."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 9 // 10])


def zeros(file: Path) -> None:
    """Keep the size and nothing else, as a crash of the whole machine may."""
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = {"flip": flip, "truncation": truncate, "zeros": zeros}


def write_photos(folder: Path, count: int = 40, side: int = 8) -> Path:
    """Write random grey pictures of two classes as folder/class/number.png; the second class is brighter."""
    noise = np.random.default_rng(0)
    for number in range(count):
        name = "cat" if number % 2 else "dog"
        low = 100 if number % 2 else 0
        target = folder / name / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(low, low + 120, (side, side), dtype=np.uint8)).save(target)
    return folder


def distilled(photos: Path, out: Path) -> potstill.RunResult:
    """Run a small distillation, or resume it."""
    return potstill.distill(photos, out=out, **SETTINGS)


def results(run: Path) -> dict[str, bytes]:
    """Return the files of a run that are the same whenever it is made: weights, logits, exported files."""
    return {
        file.relative_to(run).as_posix(): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.suffix in (".safetensors", ".onnx") and file.is_file()
    }

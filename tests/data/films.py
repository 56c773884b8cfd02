"""Photos as cameras really deliver them: tracks of frames that resemble each other more than their class does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def frame(scene: int, number: int, side: int = 32) -> Image.Image:
    """Return a frame of a scene: a smooth random picture, moved a little and with noise by the number of the frame."""
    grid = np.random.default_rng(scene).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    large = Image.fromarray(grid).resize((side + 16,) * 2, Image.Resampling.BICUBIC)
    noise = np.random.default_rng([scene, number]).integers(-12, 13, (side, side, 3))
    moved = np.asarray(large.crop((number, 8, number + side, 8 + side)), dtype=np.int64)
    return Image.fromarray((moved + noise).clip(0, 255).astype(np.uint8))


def write(root: Path, names: dict[str, tuple[int, int]], **options) -> Path:
    """Write frames (scene, number) under these names and return the folder."""
    for name, (scene, number) in names.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        frame(scene, number).save(file, **options)
    return root


def signs(classes: int = 4, tracks: int = 5, frames: int = 6) -> dict[str, tuple[int, int]]:
    """Return the names of traffic signs filmed as tracks, numbered anew in each class: `03/00002_00005.png`."""
    return {
        f"{k:02}/{track:05}_{number:05}.png": (100 * k + track, number)
        for k in range(classes)
        for track in range(tracks)
        for number in range(frames)
    }

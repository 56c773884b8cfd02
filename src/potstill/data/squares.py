"""From decoded images of any size to arrays of one size, in worker processes; so nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from potstill.data.manifest import Source
from potstill.errors import DataError

Window = tuple[int, int]  # height and width in pixels


def window_of(size: Window, resize: int) -> Window:
    """Return what is kept of each image: a square of `resize`, unless `size` is larger in one direction."""
    return max(resize, size[0]), max(resize, size[1])


def cover(pixels: np.ndarray, window: Window, channels: int) -> np.ndarray:
    """Return uint8 [C, *window]: the image [H, W, 1 or 3] scaled until it covers the window, and its centre.

    For a square window this is the short side resized (bilinear, antialiased), then the centre cropped.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    fitted = ImageOps.fit(image, window[::-1], Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.moveaxis(with_channels(np.asarray(fitted), channels), 2, 0))


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 [H, W, channels] of grey [H, W] or [H, W, 1], or RGB [H, W, 3]; grey by ITU-R 601."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def as_they_are(source: Source, window: Window, channels: int) -> np.ndarray | None:
    """Return uint8 [N, C, *window] of all images of a source, None where one has another size."""
    made = np.empty((len(source.names), *window, channels), dtype=np.uint8)
    for row in range(len(made)):
        pixels = source.image(row)
        if pixels.shape[:2] != window:
            return None
        made[row] = with_channels(pixels, channels)
    return np.ascontiguousarray(np.moveaxis(made, 3, 1))


def covered(source: Source, window: Window, channels: int) -> np.ndarray:
    """Return uint8 [N, C, *window] of all images of a source, each made to cover the window."""
    return np.stack([cover(source.image(row), window, channels) for row in range(len(source.names))])


def write_covered(source: Source, window: Window, channels: int, file: Path, place: int) -> list[str]:
    """Write all images of a source to `file`, [N, *window, C], from the place-th on; return what is wrong with some."""
    problems = []
    with file.open("r+b", buffering=0) as handle:
        for row in range(len(source.names)):
            try:
                square = cover(source.image(row), window, channels)
            except DataError as error:
                problems += error.problems
                continue
            handle.seek((place + row) * square.size)
            handle.write(np.moveaxis(square, 0, 2).tobytes())
        os.fsync(handle.fileno())
    return problems

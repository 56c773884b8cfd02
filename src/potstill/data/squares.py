"""From decoded images of any size to arrays of one size. Runs in worker processes, so nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from potstill.data.manifest import Source
from potstill.data.thumbnails import as_image
from potstill.errors import DataError

Window = tuple[int, int]  # height and width in pixels


def window_of(size: Window, resize: int) -> Window:
    """Return the (height, width) kept of each image: a square of `resize`, unless `size` is larger in a direction."""
    return max(resize, size[0]), max(resize, size[1])


def cover(pixels: np.ndarray, window: Window, channels: int) -> np.ndarray:
    """Return uint8 [C, *window]: the image [H, W, 1 or 3] scaled to cover the window, then centre-cropped.

    For a square window the short side is resized (bilinear, antialiased), then the centre cropped.
    """
    height, width = window
    fitted = ImageOps.fit(as_image(pixels), (width, height), Image.Resampling.BILINEAR)
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
    """Return uint8 [N, C, *window] of all images of a source, None if one has another size."""
    images = np.empty((len(source.names), *window, channels), dtype=np.uint8)
    for row in range(len(images)):
        pixels = source.image(row)
        if pixels.shape[:2] != window:
            return None
        images[row] = with_channels(pixels, channels)
    return np.ascontiguousarray(np.moveaxis(images, 3, 1))


def covered(source: Source, window: Window, channels: int) -> np.ndarray:
    """Return uint8 [N, C, *window] of all images of a source, each by `cover`."""
    return np.stack([cover(source.image(row), window, channels) for row in range(len(source.names))])


def write_covered(source: Source, window: Window, channels: int, file: Path, place: int) -> list[str]:
    """Write all images of a source to `file`, [N, *window, C], starting at image `place`; return the problems."""
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

"""From decoded images of any size to arrays of one size. Runs in worker processes, so nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from potstill.data.manifest import Source
from potstill.data.thumbnails import as_image
from potstill.errors import DataError
from potstill.models.card import Fit

Window = tuple[int, int]  # height and width in pixels
BORDER = 128  # the grey around a letterboxed image, 0..255


def window_of(size: Window, resize: int, fit: Fit = "crop") -> Window:
    """Return the (height, width) kept of each image: a square of `resize`, unless `size` is larger in a direction.

    Only the policy "crop" keeps more than `size`; the others have the whole image in it.
    """
    return (max(resize, size[0]), max(resize, size[1])) if fit == "crop" else size


def fitted(pixels: np.ndarray, window: Window, channels: int, fit: Fit = "crop") -> np.ndarray:
    """Return uint8 [C, *window] of an image [H, W, 1 or 3]; all policies resize bilinearly, with antialias.

    crop: the largest centred box with the shape of the window is scaled to it (`ImageOps.fit`). letterbox: the whole
    image is scaled to fit inside, centred on a border of grey. stretch: the whole image is scaled to the window.
    """
    height, width = window
    image = as_image(pixels)
    if fit == "letterbox":
        made = _letterboxed(image, window)
    elif fit == "stretch":
        made = image.resize((width, height), Image.Resampling.BILINEAR)
    else:
        made = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.moveaxis(with_channels(np.asarray(made), channels), 2, 0))


def _letterboxed(image: Image.Image, window: Window) -> Image.Image:
    height, width = inner_size((image.height, image.width), window)
    made = Image.new(image.mode, (window[1], window[0]), BORDER if image.mode == "L" else (BORDER,) * 3)
    inner = image.resize((width, height), Image.Resampling.BILINEAR)
    made.paste(inner, ((window[1] - width) // 2, (window[0] - height) // 2))
    return made


def inner_size(size: Window, window: Window) -> Window:
    """Return the (height, width), at least 1 each, of an image scaled to fit into a window; halves are rounded up."""
    height = (2 * size[0] * window[1] + size[1]) // (2 * size[1])
    width = (2 * size[1] * window[0] + size[0]) // (2 * size[0])
    return max(1, min(height, window[0])), max(1, min(width, window[1]))


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


def all_fitted(source: Source, window: Window, channels: int, fit: Fit) -> np.ndarray:
    """Return uint8 [N, C, *window] of all images of a source, each by `fitted`."""
    return np.stack([fitted(source.image(row), window, channels, fit) for row in range(len(source.names))])


def write_fitted(source: Source, window: Window, channels: int, fit: Fit, file: Path, place: int) -> list[str]:
    """Write all images of a source to `file`, [N, *window, C], starting at image `place`; return the problems."""
    problems = []
    with file.open("r+b", buffering=0) as handle:
        for row in range(len(source.names)):
            try:
                square = fitted(source.image(row), window, channels, fit)
            except DataError as error:
                problems += error.problems
                continue
            handle.seek((place + row) * square.size)
            handle.write(np.moveaxis(square, 0, 2).tobytes())
        os.fsync(handle.fileno())
    return problems

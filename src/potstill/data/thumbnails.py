"""Decoded pixels as Pillow images: thumbnails, and data URLs for self-contained HTML pages."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [H, W, 1 or 3] as a grey or RGB Pillow image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def thumbnail(pixels: np.ndarray, side: int) -> Image.Image:
    """Return uint8 [H, W, 1 or 3] resized so that the longer side has `side` pixels; small images stay sharp."""
    image = as_image(pixels)
    zoom = side / max(image.size)
    width, height = (max(1, round(length * zoom)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR if zoom < 1 else Image.Resampling.NEAREST)


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """Return an image as a data URL; kind: "PNG" or "JPEG", with Pillow's `save` options."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()

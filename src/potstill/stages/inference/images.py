"""Images in any form as pixels: files, folders, Pillow images, arrays, tensors, and lists of these.

All are converted to uint8 [H, W, C], as decoded from image files, so that an array is classified like its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from potstill.data import decode
from potstill.data.formats.files import scan
from potstill.errors import DataError

KINDS = "a path of an image or of a folder, a Pillow image, an array [H, W] or [H, W, C], a tensor [C, H, W], or a list"
GREY, COLOUR = 1, 3


@dataclass(frozen=True)
class Picture:
    """One image: its name in messages, and a function that returns its pixels, uint8 [H, W, C]."""

    name: str
    pixels: Callable[[], np.ndarray]


def pictures(images: Any) -> tuple[list[Picture], bool]:
    """Return the images, and whether it was a single one instead of a list, a folder or a batch.

    Files are not read yet. Folders are searched recursively, in natural order (2 before 10). Raises `DataError` that
    lists everything that is not an image.
    """
    result, problems, single = collected(images)
    if problems:
        raise DataError(*problems)
    return result, single


def collected(images: Any, name: str = "") -> tuple[list[Picture], list[str], bool]:
    """Return like `pictures` the images, and whether it is one, with a problem for everything that is not an image.

    name: of the containing list, "" at the top.
    """
    try:
        if isinstance(images, str | Path):
            return _from_path(Path(images))
        if isinstance(images, Image.Image | np.ndarray | torch.Tensor):
            batch = None if isinstance(images, Image.Image) or images.ndim != 4 else list(images)
            if batch is None:
                return [_in_memory(images, name or "image")], [], True
            return [_in_memory(one, _numbered(name, place)) for place, one in enumerate(batch)], [], False
    except DataError as error:
        return [], error.problems, False
    if isinstance(images, bytes | Mapping) or not isinstance(images, Iterable):
        what = "None" if images is None else f"of type {type(images).__name__}"
        return [], [f"Images must be {KINDS} of these. {name or 'This one'} is {what}."], False
    result: list[Picture] = []
    problems: list[str] = []
    for place, part in enumerate(images):
        more, wrong, _ = collected(part, _numbered(name, place))
        result, problems = result + more, problems + wrong
    return result, problems, False


def _numbered(name: str, place: int) -> str:
    """Return the name of an item of a list: "image 3", or "image 3.0" in a nested one."""
    return f"{name}.{place}" if name else f"image {place}"


def _from_path(path: Path) -> tuple[list[Picture], list[str], bool]:
    if path.is_file():
        return [_file(path)], [], True
    if not path.is_dir():
        return [], [f"There is no image at {path}. Give the path of an image, or of a folder of images."], True
    names = list(scan(path)[0])
    problems = [] if names else [f"There are no images in {path}. Give a folder that holds some, at any depth."]
    return [_file(path / name) for name in names], problems, False


def _file(path: Path) -> Picture:
    return Picture(str(path), lambda: decode.decode(path, name=str(path)))


def _in_memory(image: Image.Image | np.ndarray | torch.Tensor, name: str) -> Picture:
    """Return an image in memory; raise `DataError` if its shape or values are not those of an image."""
    if isinstance(image, Image.Image):
        return Picture(name, lambda: decode.pixels_of(ImageOps.exif_transpose(image), name=name))
    pixels = as_bytes(_of_tensor(image, name) if isinstance(image, torch.Tensor) else _of_array(image, name), name)
    return Picture(name, lambda: pixels)


def _of_array(image: np.ndarray, name: str) -> np.ndarray:
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in (GREY, COLOUR):
        raise DataError(f"{name}: {_shape(image, '[H, W], [H, W, 1] or [H, W, 3]')}")
    return pixels


def _of_tensor(image: torch.Tensor, name: str) -> np.ndarray:
    pixels = image[None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[0] not in (GREY, COLOUR):
        raise DataError(f"{name}: {_shape(image, '[1, H, W], [3, H, W] or [H, W]')}")
    if pixels.dtype in (torch.bfloat16, torch.float16):
        pixels = pixels.float()
    return pixels.detach().cpu().permute(1, 2, 0).numpy()


def _shape(image: np.ndarray | torch.Tensor, wanted: str) -> str:
    kind = "a tensor" if isinstance(image, torch.Tensor) else "an array"
    hint = ""
    if image.ndim == 3 and (image.shape[0] if kind == "an array" else image.shape[2]) in (GREY, COLOUR):
        hint = " Move its channels: " + ("image.transpose(1, 2, 0)." if kind == "an array" else "permute(2, 0, 1).")
    return f"{kind} of one image must have the shape {wanted}, but has {list(image.shape)}.{hint}"


def as_bytes(pixels: np.ndarray, name: str) -> np.ndarray:
    """Convert pixels of uint8 or of floats in 0..1 to uint8; raise `DataError` for other types and values."""
    if not pixels.size:
        raise DataError(f"{name} has no pixels: its shape is {list(pixels.shape)}.")
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"{name} has the type {pixels.dtype}. Give uint8 (0 to 255) or floats in 0..1.")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"{name} has floats from {low:g} to {high:g}, but they must be in 0..1: divide by 255, or leave out the "
            "normalisation, which is part of the model."
        )
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)

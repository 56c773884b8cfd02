"""MNIST's IDX files, plain or gzipped: `train-images-idx3-ubyte[.gz]` and its three companions."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from potstill import bounded
from potstill.data.formats.arrays import from_arrays
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.words import plural

_NAME = re.compile(r"(.*?)(train|t10k|test)[-_](images|labels)[-._]idx([13])[-_]ubyte(\.gz)?")
_SPLIT = {"train": "train", "t10k": "test", "test": "test"}
_UNSIGNED_BYTE = 8


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the IDX files of a folder by (split, "images" or "labels"); empty if there are none."""
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            files.setdefault((_SPLIT[match[2]], match[3]), path)
    return files


def read_idx(folder: Path, **rules: bool) -> Manifest:
    """Return the manifest of a folder of IDX files; class names are the labels as text.

    rules: allow_empty, trains of `from_arrays`.
    """
    files = idx_files(folder)
    images, labels, splits = [], [], []
    for split in ("train", "test"):
        if (split, "images") not in files and (split, "labels") not in files:
            continue
        pixels, label = (_array(files, folder, split, what) for what in ("images", "labels"))
        if len(pixels) != len(label):
            raise DataError(f"{folder} has {len(pixels)} images and {len(label)} labels in its {split} split.")
        images.append(pixels)
        labels.append(label)
        splits += [split] * len(label)
    sizes = [list(pixels.shape[1:]) for pixels in images]
    if sizes[0] != sizes[-1]:
        raise DataError(f"{folder} has train images of {sizes[0]} and test images of {sizes[-1]} pixels. Use one size.")
    return from_arrays(
        np.concatenate(images),
        np.concatenate(labels).astype(np.int64),
        splits,
        classes=None,
        root=str(folder),
        **rules,
    )


def _array(files: dict[tuple[str, str], Path], folder: Path, split: str, what: str) -> np.ndarray:
    if (split, what) not in files:
        raise DataError(f"{folder} has no IDX file of the {split} {what}. All four files of MNIST are needed.")
    return parse(_content(files[split, what]), 3 if what == "images" else 1, name=str(files[split, what]))


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    return b"".join(bounded.unpacked(path, most=bounded.MOST_IN_MEMORY))


def parse(content: bytes, dimensions: int, *, name: str) -> np.ndarray:
    """Return the uint8 array of an IDX file's content; raise `DataError` if it is not IDX or too short."""
    if len(content) < 4 + 4 * dimensions or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(
            f"{name} is not an IDX file of bytes with {plural(dimensions, 'dimension')}: it begins with "
            f"{content[:4].hex(' ')}."
        )
    shape = [int(side) for side in np.frombuffer(content, dtype=">u4", count=dimensions, offset=4)]
    body = content[4 + 4 * dimensions :]
    if len(body) != math.prod(shape):
        raise DataError(
            f"{name} is truncated: its header declares {math.prod(shape)} bytes, and it holds {len(body)}. Download or "
            "copy it again."
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)

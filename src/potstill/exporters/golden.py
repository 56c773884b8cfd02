"""Golden images: a few reference images with the expected outputs of the exported files, for checking a device.

If the outputs on a device differ, it decodes, scales or orders pixels differently, or computes differently; the
reference images show which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from potstill import artifacts, names
from potstill.models.outputs import Outputs

FILE = "golden.json"


def write_golden(
    folder: Path, images: Tensor, labels: Sequence[str], models: Mapping[str, Callable[[Tensor], Outputs]]
) -> None:
    """Write images as PNG, and golden.json with the logits of each of `models` for them.

    images: [N, C, H, W] in 0..1 at the input size of the models, so that a reader of the PNG only divides by 255; they
        are rounded to 8 bits before the models run. labels: the class of each. models: by the name of their file.
    """
    pixels = (255 * images).round().to(torch.uint8)
    names = [f"{number}.png" for number in range(len(pixels))]
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pixels, strict=True):
        with artifacts.atomic(folder / name) as temporary:
            Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy()).save(temporary, format="PNG")
    content = {
        "input": "pixels of the PNG as float32, divided by 255, in the order [1, channel, row, column]",
        "images": [{"file": name, "label": label} for name, label in zip(names, labels, strict=True)],
        "logits": {name: _rounded(model(pixels / 255).logits) for name, model in models.items()},
    }
    artifacts.write_json(folder / FILE, content)


def golden_difference(folder: Path, name: str, model: Callable[[Tensor], Outputs]) -> float:
    """Return the maximum logit difference between `model` on this machine and golden.json for `name`."""
    content = artifacts.read_json(folder / FILE)
    images = torch.stack([_read(names.inside(folder, one["file"], origin=folder / FILE)) for one in content["images"]])
    return float((model(images).logits - torch.tensor(content["logits"][name])).abs().max())


def _rounded(logits: Tensor) -> list[Any]:
    return [[float(f"{value:.7g}") for value in row] for row in logits.tolist()]


def _read(file: Path) -> Tensor:
    with Image.open(file) as picture:
        pixels = np.atleast_3d(np.array(picture))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255

"""Golden images: a few original images with the probabilities that the exported files give them, for checking a device.

golden/0.jpg, 1.png, ...   the originals, byte for byte (images that were no files: PNG)
golden/0-input.png, ...    the same at the input size of the network, where a file takes the prepared input
golden/golden.json         labels, and the probabilities of each file
golden/verify.py           checks the ONNX files; needs numpy, pillow and onnxruntime only

If the outputs on a device differ, it decodes, scales or orders pixels differently, or computes differently; the
images show which.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill import artifacts
from potstill.data import decode
from potstill.data.formats.sources import Encoded
from potstill.data.manifest import Manifest
from potstill.data.thumbnails import as_image
from potstill.evaluation.metrics import softmax
from potstill.model_files import snippets
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.runtimes import Exported

FILE = "golden.json"
TOLERANCE = 0.02
"""Difference of a probability up to which a device agrees: what another JPEG decoder may change."""


@dataclass(frozen=True)
class GoldenImage:
    """content: an image file; suffix: of its name, such as ".jpg". label: the name of its class."""

    content: bytes
    suffix: str
    label: str

    @classmethod
    def of(cls, manifest: Manifest, row: int) -> GoldenImage:
        """Return the original of a row: its file, or a PNG of pixels that were no file."""
        source, at, label = manifest.source, manifest.source_row(row), manifest.classes[manifest.label[row]]
        if isinstance(source, Encoded):
            return cls(source.content(at), Path(source.names[at]).suffix.lower(), label)
        return cls(_png(source.image(at)), ".png", label)


def write_golden(
    folder: Path,
    images: Sequence[GoldenImage],
    inputs: Tensor,
    models: Mapping[str, Exported],
    *,
    temperature: float | None = None,
) -> None:
    """Write the folder of golden images, with the probabilities of `models` (by the name of their file) for them.

    inputs: the same images prepared for the network, [N, C, H, W] in 0..1, rounded to 8 bits before models that take
        them run. temperature: of the files; None is 1.
    """
    inputs = (255 * inputs).round().to(torch.uint8)
    written = [
        {"file": f"{number}{image.suffix}", "prepared": f"{number}-input.png", "label": image.label}
        for number, image in enumerate(images)
    ]
    contents: dict[str, bytes] = {one["file"]: image.content for one, image in zip(written, images, strict=True)}
    if not all(_takes_photos(model) for model in models.values()):
        pairs = zip(written, inputs.permute(0, 2, 3, 1).numpy(), strict=True)
        contents |= {one["prepared"]: _png(pixels) for one, pixels in pairs}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents, snippets.VERIFY: snippets.verify().encode()}.items():
        with artifacts.atomic(folder / name) as temporary:
            temporary.write_bytes(content)
    decoded = [decode.decode(image.content, name=one["file"]) for one, image in zip(written, images, strict=True)]
    sharpness = 1.0 if temperature is None else temperature
    logits = {name: _logits(model, decoded, inputs / 255) for name, model in models.items()}
    content = {
        "images": [
            {key: value for key, value in one.items() if key == "label" or value in contents} for one in written
        ],
        "temperature": sharpness,
        "tolerance": TOLERANCE,
        "probabilities": {name: _rounded(softmax(values, sharpness)) for name, values in logits.items()},
    }
    artifacts.write_json(folder / FILE, content)


def _takes_photos(model: Exported) -> bool:
    return isinstance(model, OnnxModel) and model.raw


def _logits(model: Exported, decoded: Sequence[np.ndarray], inputs: Tensor) -> np.ndarray:
    if isinstance(model, OnnxModel) and model.raw:
        return model.of_pixels(decoded)
    return model(inputs).logits.numpy()


def _png(pixels: np.ndarray) -> bytes:
    """Return uint8 [H, W, 1 or 3] as a PNG file."""
    buffer = io.BytesIO()
    as_image(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _rounded(values: np.ndarray) -> list[Any]:
    return [[float(f"{value:.6g}") for value in row] for row in values.tolist()]

"""An ONNX file as a model `image -> Outputs`, so that the exported file itself is evaluated.

Files written by potstill contain their card, and the preprocessing of photos unless they were exported without it.
Other files (from Keras, scikit-learn, another project) need a description of their input: a `Card` in Python, or
`NAME.card.json` next to `NAME.onnx`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import joblib
import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from potstill import artifacts
from potstill.artifacts import sha256
from potstill.errors import ModelError, RunError
from potstill.model_files.onnx_input import CARD, INPUT, TEMPERATURE, prepared
from potstill.model_files.onnx_outputs import binary, choose, is_probabilities, refuse_useless, shown
from potstill.models.card import Card
from potstill.models.card_record import card_from_json, card_from_text
from potstill.models.outputs import Classifier, Outputs
from potstill.words import plural

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_BYTES = "tensor(uint8)"
_PROBED = 8  # images for which a graph from elsewhere is run, to see what it computes

PIXELS = 2**22
"""Pixels that a raw file is given at once: a batch of small images, or a few photos."""


def session(
    file: Path, *, threads: int | None = None, optimized: bool = True, graph: onnx.ModelProto | None = None
) -> ort.InferenceSession:
    """Return an onnxruntime session on the CPU; threads: None uses all cores; graph: made from the file, run instead.

    optimized: False runs the graph as it is written; quantized operators are then simulated in float.
    Raises `ModelError` if the file is missing, not an ONNX file, damaged, or not supported by onnxruntime.
    """
    if not file.is_file():
        raise ModelError(
            f"There is no file {file}. Give the path of an exported model, such as runs/NAME/student.onnx."
        )
    source = file if graph is None else graph.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails becomes an error here
    options.intra_op_num_threads = threads or joblib.cpu_count()
    options.inter_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise ModelError(_unreadable(file, error)) from None


def _unreadable(file: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0][:300]
    if "external data" in reason.lower():
        return (
            f"{file} keeps its weights in {_external(file)}, which cannot be read beside it. Copy both files into one "
            "folder, or save the model as one file: onnx.save(onnx.load(FILE), NEW)."
        )
    if "NOT_IMPLEMENTED" in reason or "No Op registered" in reason or "opset" in reason.lower():
        return (
            f"onnxruntime {ort.__version__} cannot run {file}: {reason} Export it again with a lower opset or other "
            "operators, or install a newer version of onnxruntime."
        )
    return (
        f"{file} cannot be read as an ONNX model: it has another format, or is truncated ({reason}). "
        "Export or copy it again."
    )


def _external(file: Path) -> str:
    """Return the names of the files that hold the weights of a graph."""
    try:
        tensors = onnx.load(file, load_external_data=False).graph.initializer
    except Exception:  # not even the graph can be read
        return "another file"
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return ", ".join(sorted(names)) or "another file"


@dataclass(frozen=True)
class _Graph:
    """The graph behind the preprocessing: its session, input, and the name of its output."""

    session: ort.InferenceSession
    input: Any
    output: str
    channels_last: bool


class OnnxModel:
    """A classifier in an ONNX file; call it with images [B, C, H, W] in 0..1 of any size.

    card: description of a file not written by potstill. Its `mean` and `std` are then applied here, before the graph;
        without it the card inside the file is used, and normalisation is part of the graph.
    probabilities: whether the output of such a file is probabilities instead of logits; None infers it from its values
        for random images. A fixed batch size is fed in parts; one output for two classes is that of the second.
    threads: of onnxruntime; None uses all cores. optimized: see `session`.
    raw: whether the file takes photos of any size. `of_pixels` then runs the file as it is; a call takes images that
        were fitted and cropped already (a view of training), and runs the graph behind the preprocessing.
    """

    def __init__(
        self,
        file: Path | str,
        *,
        card: Card | None = None,
        probabilities: bool | None = None,
        threads: int | None = None,
        optimized: bool = True,
    ) -> None:
        self.file, self._options = Path(file), {"threads": threads, "optimized": optimized}
        self.session = session(self.file, threads=threads, optimized=optimized)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.foreign = card is not None or CARD not in metadata
        self.card = card or (_foreign_card(self.file) if self.foreign else _own_card(self.file, metadata[CARD]))
        self.temperature = temperature_in(metadata, self.file)
        self.raw = not self.foreign and self.session.get_inputs()[0].type == _BYTES
        self._preprocessing = Classifier(nn.Identity(), self.card)
        if not self.raw:
            _ = self._graph  # refuses a graph that does not match its card
        self.probabilities = self._judged(probabilities) if self.foreign else bool(probabilities)

    @cached_property
    def _graph(self) -> _Graph:
        running = self.session
        if self.raw:
            running = session(self.file, **self._options, graph=prepared(onnx.load(self.file)))
        image = running.get_inputs()[0]
        output = choose(self.file, running.get_outputs(), len(self.card.classes)).name
        _check(self.file, image, self.card)
        return _Graph(running, image, output, _channels_last(image.shape, self.card))

    def _judged(self, probabilities: bool | None) -> bool:
        """Return whether the output is probabilities; raise `ModelError` if the graph cannot be used."""
        image = torch.from_numpy(np.random.default_rng(0).random((_PROBED, self.card.channels, *self.card.crop)))
        values = self._values(image).astype(np.float64)
        refuse_useless(self.file, values)
        return is_probabilities(self.file, self._graph.output, values) if probabilities is None else probabilities

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file, which differs between an int8 file and its original."""
        return sha256(self.file)

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1, on the device of the images."""
        output = self._values(image)
        if output.shape[1] == 1 and len(self.card.classes) == 2:
            output = binary(output, self.probabilities)
        logits = torch.from_numpy(output.astype(np.float32, copy=False)).to(image.device)
        return Outputs(logits.clamp_min(torch.finfo(torch.float32).tiny).log() if self.probabilities else logits)

    def _values(self, image: Tensor) -> np.ndarray:
        """Return the output [B, K] for images; raise `ModelError` if the graph cannot be run on them."""
        try:
            return self.run(self.arranged(image)).reshape(len(image), -1)
        except Exception as error:  # see session
            reason = str(error).splitlines()[0][:300]
            raise ModelError(f"{self.file} cannot be run on images of {self.card.size} pixels: {reason}") from None

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, C, H, W] in 0..1 with the size, axes, range and type of the graph's input."""
        graph = self._graph
        image = image.float().cpu()
        if graph.input.type == _BYTES:
            image = (self._preprocessing.resize(image).clamp(0, 1) * 255).round()
        else:
            image = self._preprocessing.prepare(image) if self.foreign else self._preprocessing.resize(image)
        ordered = image.permute(0, 2, 3, 1) if graph.channels_last else image
        flat = ordered.flatten(1) if len(graph.input.shape) == 2 else ordered
        return np.ascontiguousarray(flat.numpy().astype(DTYPES[graph.input.type], copy=False))

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run only the graph, on the result of `arranged`; this is the function to time."""
        graph = self._graph
        batch = graph.input.shape[0]
        if not isinstance(batch, int) or len(image) == batch:
            return cast(np.ndarray, graph.session.run([graph.output], {graph.input.name: image})[0])
        parts = []
        for start in range(0, len(image), batch):  # the last part is filled with repetitions of its last image
            part = image[start : start + batch]
            filled = part[np.minimum(np.arange(batch), len(part) - 1)]
            parts.append(np.asarray(graph.session.run([graph.output], {graph.input.name: filled})[0])[: len(part)])
        return np.concatenate(parts)

    def of_pixels(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits float32 [N, K] of the raw file itself, for decoded images uint8 [H, W, 1 or 3]."""
        assert self.raw, f"{self.file} takes the prepared input"
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, image in enumerate(images):
            alike[image.shape].append(place)
        logits = np.empty((len(images), len(self.card.classes)), np.float32)
        for (height, width, _), places in alike.items():
            step = max(1, PIXELS // (height * width))
            for part in (places[start : start + step] for start in range(0, len(places), step)):
                batch = np.stack([images[place] for place in part])
                logits[part] = cast(np.ndarray, self.session.run(None, {INPUT: batch})[0])
        return logits


def temperature_in(metadata: Mapping[str, str], file: Path) -> float | None:
    """Return the calibration temperature in a file's metadata, None without one; raise `ModelError` if it is none."""
    text = metadata.get(TEMPERATURE)
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = math.nan
    if value is not None and not (0 < value < math.inf):
        raise ModelError(
            f"{file} has the calibration temperature {text!r}; it must be a number above 0. Export it again."
        )
    return value


def _own_card(file: Path, text: str) -> Card:
    return card_from_text(text, origin=f"The card inside {file}")


def _foreign_card(file: Path) -> Card:
    """Return the card stored next to a file that was not written by potstill."""
    beside = file.with_suffix(".card.json")
    if not beside.is_file():
        raise ModelError(
            f"{file} was not exported by potstill, so its classes and normalisation are unknown. Write "
            f'{beside.name} next to it: {{"classes": ["cat", "dog"], "mean": [0, 0, 0], "std": [1, 1, 1]}}, with mean '
            "and std of images in 0..1 (std 0.00392157 if the model expects 0..255), or pass a card to OnnxModel."
        )
    try:
        return describe(file, **artifacts.read_object(beside))
    except (TypeError, ValueError, RunError) as error:  # card_from_json judges the rest
        raise ModelError(
            f"{beside} must be a JSON object with classes, mean and std, and if needed size, resize, crop, source and "
            f"licence ({error})."
        ) from None


def describe(file: Path, *, classes: Sequence[str], mean: Sequence[float], std: Sequence[float], **more: Any) -> Card:
    """Return a card for an ONNX file not written by potstill; the size is read from the file if it is fixed there.

    mean, std: normalisation of images in 0..1, one value per channel. more: `size` = (height, width) if it is not
    fixed in the file, and other fields of `Card`.
    """
    height, width = more.pop("size", None) or _size(file, len(mean))
    size = (height, width)
    more.setdefault("source", file.name)
    more.setdefault("weights_sha256", sha256(file))
    photos = {"resize": more.pop("resize", min(size)), "crop": tuple(more.pop("crop", size))}
    fields = {"classes": classes, "channels": len(mean), "size": size, "mean": mean, "std": std, **photos, **more}
    return card_from_json({"model": f"onnx:{file.name}", **fields}, origin=f"The card of {file}")


def _size(file: Path, channels: int) -> tuple[int, int]:
    shape = session(file, threads=1).get_inputs()[0].shape
    if len(shape) == 2 and isinstance(shape[1], int):
        side = round((shape[1] / channels) ** 0.5)
        if side * side * channels == shape[1]:
            return side, side
    sides = shape[1:3] if shape[-1] == channels else shape[2:4]
    if len(shape) == 4 and all(isinstance(side, int) for side in sides):
        return sides[0], sides[1]
    raise ModelError(f"{file} takes images {shown(shape)} without a fixed size. Give size = [height, width].")


def _channels_last(shape: Sequence[Any], card: Card) -> bool:
    """Whether the graph takes [B, H, W, C]; flat input is assumed to have this order, as in image libraries."""
    if len(shape) == 2:
        return True
    return len(shape) == 4 and shape[3] == card.channels and shape[1] != card.channels


def _check(file: Path, image: Any, card: Card) -> None:
    height, width = card.size
    shapes = {2: [(card.channels * height * width,)], 4: [(card.channels, *card.size), (*card.size, card.channels)]}
    fits = any(
        all(not isinstance(has, int) or has == wants for has, wants in zip(image.shape[1:], shape, strict=True))
        for shape in shapes.get(len(image.shape), [])
    )
    if not fits or image.type not in DTYPES:
        raise ModelError(
            f"{file} takes {image.type} {shown(image.shape)}, which does not match its card: "
            f"{plural(card.channels, 'channel')} of {height}x{width} pixels as floating point numbers or uint8. "
            "Correct the card, or export the model with such an input."
        )
    if image.type == _BYTES and not (set(card.mean) == {0.0} and set(card.std) <= {1.0, 0.00392157, 1 / 255}):
        raise ModelError(
            f"{file} takes whole numbers from 0 to 255, so it normalises by itself, but its card has mean {card.mean} "
            f"and std {card.std}. Set mean to 0 and std to 1."
        )

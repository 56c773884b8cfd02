"""Packed files of weights with 2 to 8 bits; docs/packed-weights.md describes the format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from potstill.compress.quantize.fake import QuantConv2d, QuantLinear, quantized_layers
from potstill.errors import ModelError

KEY, VERSION = "potstill-packed-weights", 1


def pack(model: nn.Module, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the packed file of a quantized model; `metadata` is additional text (a card, class names)."""
    layers = quantized_layers(model)
    if not layers:
        raise ModelError(f"{type(model).__name__} has no quantized layers to pack. Quantize it first.")
    state = model.state_dict()
    tensors, described = {}, {}
    for name, layer in layers.items():
        start = f"{name}." if name else ""
        codes = layer.weight_quantizer.encode(layer.weight).cpu().numpy()
        lowest, bits = layer.weight_quantizer.codes[0].item(), layer.weight_quantizer.bits
        tensors[f"{start}weight.packed"] = torch.from_numpy(pack_codes(codes - lowest, bits))
        tensors[f"{start}weight.step"] = layer.weight_quantizer.scale.flatten()
        described[name] = {"shape": list(layer.weight.shape), "bits": bits, "lowest": lowest, "input": _input(layer)}
        inside = [f"{start}weight", *(key for key in state if key.startswith(_quantizers(start)))]
        state = {key: value for key, value in state.items() if key not in inside}
    tensors |= {key: value.clone() for key, value in state.items()}  # safetensors does not accept shared memory
    head = {"version": VERSION, "layers": described, "metadata": dict(metadata or {})}
    text = json.dumps(head, separators=(",", ":"))  # under a single key, because safetensors does not keep the order
    return safetensors.save({key: value.cpu().contiguous() for key, value in tensors.items()}, {KEY: text})


def unpack(file: bytes | Path) -> dict[str, Tensor]:
    """Return the state dict of the packed model; `restored(model, state)` returns the model.

    Weights are rounded, bit-identical to those that the model computed with.

    Raises:
        ModelError: the file does not hold packed weights, or has another version.
    """
    content = file if isinstance(file, bytes) else file.read_bytes()
    what = "The packed weights" if isinstance(file, bytes) else str(file)
    described = read_head(content, what)["layers"]
    state = safetensors.load(content)
    for name, layer in described.items():
        start = f"{name}." if name else ""
        shape, bits, lowest = layer["shape"], layer["bits"], layer["lowest"]
        codes = unpack_codes(state.pop(f"{start}weight.packed").numpy(), bits, math.prod(shape))
        codes = torch.from_numpy(codes).view(shape) + lowest
        step = state.pop(f"{start}weight.step").view(-1, *[1] * (len(shape) - 1))
        state[f"{start}weight"] = codes * step
        state[f"{start}weight_quantizer.step"] = step
        state[f"{start}weight_quantizer.codes"] = _codes(lowest, bits)
        if inputs := layer["input"]:
            state[f"{start}input_quantizer.step"] = torch.tensor(inputs["step"])
            state[f"{start}input_quantizer.codes"] = _codes(inputs["lowest"], inputs["bits"])
    return state


def packed_bytes(model: nn.Module) -> int:
    """Return the number of bytes of the packed codes, without steps, biases and the header of the file."""
    layers = quantized_layers(model).values()
    return sum(math.ceil(layer.weight.numel() * layer.weight_quantizer.bits / 8) for layer in layers)


def float_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of an unpacked state dict for a model without quantizers: weights, biases and buffers."""
    return {key: value for key, value in state.items() if not _is_quantizer(key)}


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack unsigned integers below 2**bits consecutively, least significant bit first, into uint8."""
    split = codes.astype(np.uint8).reshape(-1, 1) >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(split.reshape(-1), bitorder="little")


def unpack_codes(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first `count` integers packed by `pack_codes`, as int64."""
    split = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return split.astype(np.int64) @ (1 << np.arange(bits))


def _input(layer: QuantConv2d | QuantLinear) -> dict[str, float] | None:
    quantizer = layer.input_quantizer
    if quantizer is None:
        return None
    return {"step": quantizer.scale.item(), "lowest": quantizer.codes[0].item(), "bits": quantizer.bits}


def _quantizers(start: str) -> tuple[str, str]:
    return f"{start}weight_quantizer.", f"{start}input_quantizer."


def _is_quantizer(key: str) -> bool:
    return key.split(".")[-2:-1] in (["weight_quantizer"], ["input_quantizer"])


def _codes(lowest: int, bits: int) -> Tensor:
    return torch.tensor([lowest, lowest + 2**bits - 1])


def read_head(content: bytes, what: str) -> dict[str, Any]:
    """Return the header of a packed file: `version`, `layers` and `metadata`."""
    try:
        safetensors.load(content)
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except SafetensorError as error:
        raise ModelError(f"{what}: not readable as safetensors ({error}). It is damaged or another format.") from None
    if KEY not in head:
        raise ModelError(f"{what}: this is not a file of packed weights. Create one with `potstill quantize`.")
    packed = json.loads(head[KEY])
    if packed["version"] != VERSION:
        raise ModelError(
            f"{what}: packed weights of version {packed['version']}, but this version of potstill reads version "
            f"{VERSION}. Read it with the version of potstill that wrote it, or quantize again."
        )
    return packed

"""What a network costs on a device, before it is trained or after: `footprint`.

The figures of an untrained network are those of its trained one: it is exported to a temporary file and quantized with
noise as calibration images. Sizes and the plan of its memory do not depend on the values of weights; nor does latency,
but for the rounding of numbers very close to zero.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from potstill.exporters.device_profile import DeviceProfile
from potstill.exporters.onnx_float import export_onnx
from potstill.exporters.onnx_int8 import quantize_int8
from potstill.exporters.reference_nets import reference_net
from potstill.model_files.latency import latency_ms
from potstill.model_files.planner import Plan, plan
from potstill.models.outputs import Classifier

FLOAT = 32
NOISE = 8
"""Images of noise for the calibration of an untrained network."""
FILLED = 0.01
SAVED = 8
"""Bytes for each channel that a file with few bits needs less than an 8-bit file: its biases and steps have 16 bits."""
CODE = 15_000
"""Bytes assumed for code: C generated for a network (emx-onnx-cgen 1.4, `gcc -Os`) has 8 to 15 kB. An interpreter with
optimized kernels has more: 56 to 81 KiB in STM32Cube.AI 9.1, by its own figures for MobileNetV1 and small ResNets."""


@dataclass(frozen=True)
class Footprint:
    """The cost of a network for one image.

    bits: of the weights; 32 is float. bytes: of the ONNX file with these bits (below 8 bits predicted from the 8-bit
    file). weights: bytes of all constants with these bits. flash: weights and `CODE`.
    ram_int8, ram_float: peak of the activations in bytes, in 8 bits and in float32, the image included.
    latency_ms: median of one image on one thread on this machine, None if not measured; latency_ratio: the same in
    units of a reference network that ran in turns with it, which does not depend on how busy the machine is.
    device_ms: the latency predicted for a device from its profile.
    """

    bits: int
    parameters: int
    macs: int
    bytes: int
    weights: int
    flash: int
    ram_int8: int
    ram_float: int
    activation_bits: int = 8
    latency_ms: float | None = None
    latency_ratio: float | None = None
    device_ms: float | None = None

    @property
    def ram(self) -> int:
        """Peak of the activations in the bits that they have: 8 or 32."""
        return self.ram_float if self.activation_bits == FLOAT else self.ram_int8

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; what was not measured is absent."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def footprint(
    model: Classifier | Path,
    *,
    bits: int | None = None,
    time: bool = False,
    seconds: float = 0.3,
    device: DeviceProfile | None = None,
) -> Footprint:
    """Return what a network, trained or not, or an ONNX file costs on a device.

    bits: of the weights, 2 to 8 or 32; None: 8 for a network, for a file those of its activations. time: measure the
    latency too, for `seconds` each of the network and a reference. device: for which the latency is predicted. Raises
    `ModelError` if the network cannot be exported, quantized or run.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-footprint-") as name:
        file = model if isinstance(model, Path) else _exported(model, Path(name), bits or 8)
        needs = plan(file)
        bits = bits or needs.bits
        size = file.stat().st_size
        if not isinstance(model, Path) and bits < 8:
            size += needs.weight_bytes(bits) - needs.weight_bytes(8) - SAVED * needs.channels
        milliseconds, ratio = timed([file], seconds)[0] if time else (None, None)
        scaled = device.latency(needs, bits) if device else None
        return _of(needs, bits, size, latency_ms=milliseconds, latency_ratio=ratio, device_ms=scaled)


def _exported(model: Classifier, folder: Path, bits: int) -> Path:
    """Return the float file of a network, or its 8-bit file."""
    plain, small = folder / "model.onnx", folder / "model_int8.onnx"
    export_onnx(_without_zeros(model), plain)
    if bits == FLOAT:
        return plain
    card = model.card
    quantize_int8(plain, small, np.random.default_rng(0).random((NOISE, card.channels, *card.size), dtype=np.float32))
    return small


def _without_zeros(model: Classifier) -> Classifier:
    """Return a copy without parameters that are zero as a whole, as they are before training.

    The exporter would leave out what depends on them: biases, and branches that end in a BatchNorm of zeros.
    """
    changed = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(0)
    for parameter in changed.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=FILLED, generator=noise)
    return changed


def _of(needs: Plan, bits: int, size: int, **latency: float | None) -> Footprint:
    weights = needs.weight_bytes(bits)
    return Footprint(
        bits=bits,
        parameters=needs.parameters,
        macs=needs.macs,
        bytes=size,
        weights=weights,
        flash=weights + CODE,
        ram_int8=needs.peak,
        ram_float=4 * needs.peak,
        activation_bits=needs.bits,
        **latency,
    )


def timed(files: Sequence[Path], seconds: float = 0.3) -> list[tuple[float, float]]:
    """Return the median latency of one image on one thread, in milliseconds, of each file, and its ratio to the
    reference network, all measured in turns for `seconds` each."""
    with tempfile.TemporaryDirectory(prefix="potstill-reference-") as folder:
        reference = reference_net(Path(folder) / "reference.onnx", kind="residual", width=16, size=32)
        first, *others = latency_ms([reference, *files], seconds=seconds)
    return [(one.median_ms, one.median_ms / first.median_ms) for one in others]

"""How fast a device is: a profile that the device measures of itself, and the latency of other networks on it.

`measure` times small reference networks on the device. Elsewhere `DeviceProfile.latency` predicts the latency of a
network from its plan: time per operator, per multiply-accumulate of ordinary and of depthwise layers, and per element
of activations moved, none negative, fitted to the reference networks by relative least squares; float and 8-bit
networks have separate rates. The stated error is the root mean square of the relative errors of the reference networks,
each predicted from the others.
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from potstill.config import Config, build
from potstill.errors import ModelError
from potstill.exporters.reference_nets import reference_net
from potstill.model_files.latency import latency_ms
from potstill.model_files.planner import Plan, plan
from potstill.words import argument

NETS = (
    ("residual", 8, 16), ("residual", 8, 32), ("residual", 16, 32), ("residual", 32, 32), ("residual", 16, 64),
    ("separable", 8, 32), ("separable", 16, 32), ("separable", 16, 64), ("separable", 32, 64), ("separable", 16, 96),
)  # fmt: skip
"""Reference networks: kind, channels at the first resolution, side of the image."""
SCHEMA = 1
LEAST = 5
"""Reference networks of a precision, of which four rates and their error can be found."""


class Work(Config):
    """What a network has to do for one image."""

    operators: int = Field(ge=1)
    macs: int = Field(ge=0, description="of ordinary convolutions and dense layers")
    depthwise_macs: int = Field(ge=0)
    moved: int = Field(ge=1, description="elements alive, summed over operators")

    @classmethod
    def of(cls, needs: Plan) -> Work:
        """Return the work of a plan."""
        depthwise = sum(layer.macs for layer in needs.layers if layer.depthwise)
        return cls(
            operators=len(needs.operators), macs=needs.macs - depthwise, depthwise_macs=depthwise, moved=sum(needs.live)
        )

    @property
    def row(self) -> list[float]:
        """The same as numbers of similar size."""
        return [self.operators, self.macs / 1e6, self.depthwise_macs / 1e6, self.moved / 1e6]


class Measured(Config):
    """The latency of a reference network on the device: median and quartiles of one image, in milliseconds."""

    net: str
    bits: int = Field(description="8 or 32")
    work: Work
    latency_ms: float = Field(gt=0)
    quartiles_ms: tuple[float, float]


class DeviceProfile(Config):
    """The content of a profile: JSON, schema 1 (docs/export.md)."""

    schema_version: Literal[1] = SCHEMA
    name: str = Field(min_length=1, description="of the device")
    processor: str
    threads: int = Field(ge=1)
    runtime: str = Field(description="name and version")
    measured: tuple[Measured, ...]

    def latency(self, needs: Plan, bits: int) -> float:
        """Return the predicted latency of one image in milliseconds; bits: of the weights, 32 for float."""
        rates = self._rates[32 if bits == 32 else 8]
        return float(np.array(Work.of(needs).row) @ rates)

    def error(self, bits: int) -> float:
        """Return the relative error to expect, 0.2 for 20 %: of reference networks predicted from the others."""
        rows, latencies = self._table(32 if bits == 32 else 8)
        places = np.arange(len(rows))
        left_out = [rows[i] @ _fit(rows[places != i], latencies[places != i]) / latencies[i] - 1 for i in places]
        return float(np.sqrt(np.mean(np.square(left_out))))

    @cached_property
    def _rates(self) -> dict[int, np.ndarray]:
        return {bits: _fit(*self._table(bits)) for bits in (8, 32)}

    def _table(self, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the work [N, 4] and the latencies [N] of the reference networks of a precision."""
        chosen = [one for one in self.measured if one.bits == bits]
        return np.array([one.work.row for one in chosen]), np.array([one.latency_ms for one in chosen])


def _fit(rows: np.ndarray, latencies: np.ndarray) -> np.ndarray:
    """Return the rates [4], none negative, with the least sum of squared relative errors."""
    rates, _ = nnls(rows / latencies[:, None], np.ones(len(rows)))
    return rates


def measure(name: str, *, processor: str, runtime: str, threads: int = 1, seconds: float = 0.3) -> DeviceProfile:
    """Return the profile of this machine, measured in half a minute, or some minutes on a slow one.

    runtime: name and version of what runs the networks. seconds: of measurement for each reference network; all run in
    turns.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-profile-") as folder:
        nets = {
            (net, bits): Path(folder) / f"{'-'.join(map(str, net))}-{bits}.onnx" for net in NETS for bits in (32, 8)
        }
        for ((kind, width, size), bits), file in nets.items():
            reference_net(file, kind=kind, width=width, size=size, int8=bits == 8)
        timings = latency_ms(list(nets.values()), threads=threads, seconds=seconds)
        measured = tuple(
            Measured(
                net=file.stem,
                bits=bits,
                work=Work.of(plan(file)),
                latency_ms=one.median_ms,
                quartiles_ms=(one.low_ms, one.high_ms),
            )
            for ((_, bits), file), one in zip(nets.items(), timings, strict=True)
        )
    return DeviceProfile(name=name, processor=processor, threads=threads, runtime=runtime, measured=measured)


def read_profile(file: Path) -> DeviceProfile:
    """Return the profile in a file; raise `ModelError` where it is none, with every wrong key."""
    advice = f"Write one on the device: potstill bench --device-profile {argument(file)}"
    if not file.is_file():
        raise ModelError(f"There is no device profile at {file}. {advice}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # neither JSON nor text
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a device profile, which is a JSON object. {advice}")
    profile = build(DeviceProfile, content, origin=str(file))
    for bits in (8, 32):
        if sum(one.bits == bits for one in profile.measured) < LEAST:
            raise ModelError(f"{file} has fewer than {LEAST} networks of {bits} bits, too few to scale from. {advice}")
    return profile

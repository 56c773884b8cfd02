"""Integers with a scale and a zero point, as in int8 and int4 kernels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from potstill.compress.formats.rounding import Rounding, check_bits, check_choice, round_signed
from potstill.errors import ConfigError

IntegerOverflow = Literal["saturate", "wrap"]


@dataclass(frozen=True)
class IntegerFormat:
    """The numbers `(code - zero_point) * scale`, `code` an integer of `bits` bits (arXiv:1712.05877).

    `code = round(x / scale) + zero_point`, in this order, as in ONNX QuantizeLinear. `overflow="saturate"` clips codes
    to the range; "wrap" keeps their low bits, as in two's complement arithmetic. NaN stays NaN.
    """

    bits: int = 8
    signed: bool = True
    scale: float = 1.0
    zero_point: int = 0
    rounding: Rounding = "nearest"
    overflow: IntegerOverflow = "saturate"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 2)
        check_choice("The rounding", self.rounding, Rounding)
        check_choice("The overflow", self.overflow, IntegerOverflow)
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ConfigError(f"The scale of {self.name} is {self.scale}, but it must be positive and finite.")
        low, high = self.codes
        if not low <= self.zero_point <= high:
            raise ConfigError(
                f"The zero point {self.zero_point} of {self.name} is outside of its codes, {low} to {high}, so 0 "
                "cannot be represented."
            )

    @property
    def name(self) -> str:
        """The name in the syntax of `parse_format`, without scale and zero point."""
        return f"{'int' if self.signed else 'uint'}{self.bits}"

    @property
    def codes(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        low, high = self.codes
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale

    def fit(self, low: float, high: float) -> IntegerFormat:
        """Return this format with scale (and zero point, if unsigned) such that it covers [low, high] and 0.

        Signed formats stay symmetric: zero point 0, largest code at the larger magnitude.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            return dataclasses.replace(self, scale=1.0, zero_point=0)
        if self.signed:
            return dataclasses.replace(self, scale=max(-low, high) / self.codes[1], zero_point=0)
        scale = (high - low) / self.codes[1]
        return dataclasses.replace(self, scale=scale, zero_point=round(-low / scale))

    @torch.no_grad()
    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the codes of `x` as int64; NaN becomes the zero point."""
        return self._codes(x, generator).nan_to_num(self.zero_point).long()

    def decode(self, codes: Tensor) -> Tensor:
        """Return the numbers of integer `codes`, as float64."""
        return (codes.double() - self.zero_point) * self.scale

    @torch.no_grad()
    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return `x` rounded to the grid, in its dtype, without gradient. `generator` is for stochastic rounding."""
        return self.decode(self._codes(x, generator)).to(x.dtype)

    def _codes(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.codes
        # + 0.0 turns the -0.0 of rounding into 0.0, the only zero of integers
        codes = round_signed(x.double() / self.scale, self.rounding, generator) + self.zero_point + 0.0
        if self.overflow == "wrap":
            return (codes - low).remainder(high - low + 1) + low
        return codes.clamp(low, high)

"""A floating point format behind a power of two, which moves its range to where the numbers are and rounds nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.compress.formats.floating import FloatFormat


@dataclass(frozen=True)
class ScaledFormat:
    """The numbers of `number`, divided by `scale`, a power of two: another bias of the exponent, one for each tensor.

    8-bit floating point is used so (arXiv:2209.05433): the largest magnitude of a tensor comes close to the end of the
    range, and few numbers are left below its smallest.
    """

    number: FloatFormat
    scale: float = 1.0

    @classmethod
    def fit(cls, number: FloatFormat, largest: float) -> ScaledFormat:
        """Return the format with the largest power of two that keeps the magnitude `largest` inside the range."""
        if not largest > 0:
            return cls(number)
        _, exponent = math.frexp(number.range[1] / largest)  # 2**(exponent - 1) <= range / largest
        return cls(number, math.ldexp(1.0, exponent - 1))

    @property
    def name(self) -> str:
        """The format's name and its scale."""
        return f"{self.number.name} / 2^{round(math.log2(self.scale))}"

    @property
    def bits(self) -> int:
        return self.number.bits

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        low, high = self.number.range
        return low / self.scale, high / self.scale

    @torch.no_grad()
    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return `x` on the grid, in its own dtype; no gradient flows. `generator` is for stochastic rounding."""
        return (self.number.quantize(x.double() * self.scale, generator=generator) / self.scale).to(x.dtype)

    @torch.no_grad()
    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the bit patterns of `x` as int64, the sign as the highest bit."""
        return self.number.encode(x.double() * self.scale, generator=generator)

"""Floating point with any number of exponent and mantissa bits: fp16, bf16, the 8-bit formats and smaller ones.

The magnitudes of a float format are ordered by their bit patterns (exponent field, then mantissa). So a number is
rounded by finding the pattern below it and the fraction of the distance to the next one; carries into the exponent,
subnormals and ties to even need no special cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from potstill.compress.formats.rounding import Rounding, check_bits, check_choice, round_up
from potstill.errors import ConfigError

FloatOverflow = Literal["saturate", "special"]
Specials = Literal["ieee", "fn", "finite"]


@dataclass(frozen=True)
class FloatFormat:
    """A sign, `exponent` bits with bias 2**(exponent-1) - 1, `mantissa` bits, subnormals.

    `specials` defines the meaning of the largest bit patterns: "ieee" reserves the largest exponent for inf and NaN,
    "fn" only the largest pattern, for NaN (OCP e4m3, arXiv:2209.05433), "finite" none (OCP e2m1, e2m3, e3m2).
    `overflow="saturate"` returns the largest number, also for inf; "special" returns inf, or NaN in "fn".
    Rounding toward zero never exceeds the largest finite number. NaN stays NaN.
    """

    exponent: int = 5
    mantissa: int = 10
    specials: Specials = "ieee"
    rounding: Rounding = "nearest"
    overflow: FloatOverflow = "saturate"

    def __post_init__(self) -> None:
        check_choice("The set of special values", self.specials, Specials)
        check_choice("The rounding", self.rounding, Rounding)
        check_choice("The overflow", self.overflow, FloatOverflow)
        check_bits(self.name, self.bits, 2)
        least = 2 if self.specials == "ieee" else 1
        if not least <= self.exponent <= 10:
            raise ConfigError(
                f"The floating point format {self.name} has {self.exponent} exponent bits; potstill simulates "
                f"{least} to 10 (it computes in float64, which has 11)."
            )
        if self.specials == "finite" and self.overflow == "special":
            raise ConfigError(f"The format {self.name} has neither inf nor NaN, so its overflow must be 'saturate'.")

    @property
    def name(self) -> str:
        """The name in the syntax of `parse_format`."""
        return f"e{self.exponent}m{self.mantissa}{self.specials}"

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def range(self) -> tuple[float, float]:
        """The smallest (most negative) and the largest finite number."""
        largest = self._value(torch.tensor([self._largest], dtype=torch.float64)).item()
        return -largest, largest

    @property
    def bias(self) -> int:
        """The exponent bias, which is subtracted from the exponent field."""
        return (1 << self.exponent - 1) - 1

    @property
    def smallest(self) -> float:
        """The smallest positive number, a subnormal."""
        return 2.0**self._least_exponent * 2.0**-self.mantissa

    @property
    def smallest_normal(self) -> float:
        """The smallest normal positive number; below it the distance of adjacent numbers is constant."""
        return 2.0**self._least_exponent

    @property
    def _least_exponent(self) -> int:
        return 2 - (1 << self.exponent - 1)

    @property
    def _largest(self) -> int:
        """The bit pattern (without sign) of the largest finite number."""
        taken = {"ieee": 1 << self.mantissa, "fn": 1, "finite": 0}[self.specials]
        return (1 << self.exponent + self.mantissa) - 1 - taken

    @torch.no_grad()
    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return `x` rounded to the grid, in its dtype, without gradient. `generator` is for stochastic rounding.

        The result is exact if the dtype of `x` represents every number of the format (float32 does up to e8m23).
        """
        wide = x.double()
        magnitude = wide.abs()
        infinite = magnitude.isinf()
        floor, fraction = self._pattern(magnitude.masked_fill(infinite, 0.0))
        pattern = round_up(floor, fraction, self.rounding, generator)
        over = (pattern > self._largest) if self.rounding != "zero" else torch.zeros_like(infinite)
        value = self._value(pattern.clamp(max=self._largest))
        value = torch.where(over | infinite, self._overflowed(), value)
        return torch.copysign(value, wide).masked_fill(x.isnan(), float("nan")).to(x.dtype)

    @torch.no_grad()
    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the bit patterns of `x` as int64, the sign as the highest bit.

        NaN is the pattern with all exponent bits and the highest mantissa bit set ("ieee"), or with all bits set
        ("fn"); its sign is 0. "finite" formats have no NaN: they raise `ConfigError`.
        """
        rounded = self.quantize(x.double(), generator=generator)
        nan, infinite = rounded.isnan(), rounded.isinf()
        if self.specials == "finite" and nan.any():
            raise ConfigError(f"The format {self.name} has no pattern for NaN.")
        pattern, _ = self._pattern(rounded.abs().masked_fill(nan | infinite, 0.0))
        magnitude = pattern.long().masked_fill(infinite, self._largest + 1).masked_fill(nan, self._nan)
        negative = torch.signbit(rounded) & ~nan
        return magnitude + (negative.long() << self.exponent + self.mantissa)

    @property
    def _nan(self) -> int:
        every = (1 << self.exponent + self.mantissa) - 1
        return every if self.specials == "fn" or not self.mantissa else every - (1 << self.mantissa - 1) + 1

    def _overflowed(self) -> float:
        if self.overflow == "saturate":
            return self.range[1]
        return float("inf") if self.specials == "ieee" else float("nan")

    def _pattern(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bit pattern below each magnitude and the fraction of the distance to the next, both float64."""
        unit, power = torch.frexp(magnitude)  # magnitude = unit * 2**power, unit in [0.5, 1)
        field = (power - self._least_exponent).clamp(min=0)  # 0 for subnormals, at least 1 for the others
        field = field.masked_fill(magnitude == 0, 0)
        significand = torch.where(field > 0, unit * 2.0, magnitude * 2.0**-self._least_exponent)
        scaled = significand * 2.0**self.mantissa
        floor = scaled.floor()
        pattern = (field - 1).clamp(min=0).double() * 2.0**self.mantissa + floor
        return pattern, scaled - floor

    def _value(self, pattern: Tensor) -> Tensor:
        """Return the magnitudes (float64) of bit patterns (float64 holding integers)."""
        above = (pattern * 2.0**-self.mantissa).floor().sub(1).clamp(min=0)  # exponents above the least one
        significand = pattern * 2.0**-self.mantissa - above
        power = (above.nan_to_num().long() + self._least_exponent + 1023 << 52).view(torch.float64)
        return significand * power

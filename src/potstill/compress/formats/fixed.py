"""Fixed point: integers whose scale is a power of two, so that scaling needs shifts and no multiplications."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.compress.formats.integer import IntegerFormat, IntegerOverflow
from potstill.compress.formats.rounding import Rounding, check_bits
from potstill.errors import ConfigError


@dataclass(frozen=True)
class FixedFormat:
    """Qm.n: multiples of 2**-fraction with `integer + fraction` bits in total.

    The sign bit is one of the `integer` bits (the convention of ARM; Texas Instruments writes one bit less): q4.4 has
    8 bits and a range of -8 to 7.9375, uq4.4 of 0 to 15.9375, q1.7 of -1 to 0.9921875.
    """

    integer: int = 4
    fraction: int = 4
    signed: bool = True
    rounding: Rounding = "nearest"
    overflow: IntegerOverflow = "saturate"

    def __post_init__(self) -> None:
        if self.integer < 0 or self.fraction < 0:
            raise ConfigError(
                f"The fixed point format {self.name} has a negative number of bits on one side of the point; both must "
                "be at least 0, as in q4.4."
            )
        check_bits(self.name, self.bits, 2)
        self._integers()  # checks rounding and overflow

    @property
    def name(self) -> str:
        """The name in the syntax of `parse_format`."""
        return f"{'q' if self.signed else 'uq'}{self.integer}.{self.fraction}"

    @property
    def bits(self) -> int:
        return self.integer + self.fraction

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        return self._integers().range

    @torch.no_grad()
    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return `x` rounded to the grid, in its dtype, without gradient. `generator` is for stochastic rounding."""
        return self._integers().quantize(x, generator=generator)

    @torch.no_grad()
    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the stored integers, `x * 2**fraction` rounded, as int64."""
        return self._integers().encode(x, generator=generator)

    def _integers(self) -> IntegerFormat:
        return IntegerFormat(
            self.bits, self.signed, 2.0**-self.fraction, rounding=self.rounding, overflow=self.overflow
        )

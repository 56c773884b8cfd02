"""Rounding, shared by all formats, so that ties are treated the same everywhere.

Everything is computed in float64 on magnitudes: a quotient is split into its floor and its fraction, both exact, and
only the fraction decides whether the floor is increased by one.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from potstill.errors import ConfigError, did_you_mean

Rounding = Literal["nearest", "zero", "stochastic"]
LARGEST = 2.0**52  # from here on float64 has no fractions; no format below 32 bits has such large codes


def round_up(floor: Tensor, fraction: Tensor, rounding: Rounding, generator: torch.Generator | None) -> Tensor:
    """Return `floor` or `floor + 1` for magnitudes `floor + fraction`.

    "nearest" rounds ties to even, "zero" never rounds up, "stochastic" rounds up with probability `fraction`, so that
    the expected value is the number itself (arXiv:1502.02551).
    """
    if rounding == "zero":
        return floor
    if rounding == "stochastic":
        drawn = torch.rand(fraction.shape, generator=generator, dtype=fraction.dtype, device=fraction.device)
        return floor + (drawn < fraction)
    tie_up = (fraction == 0.5) & (floor.remainder(2) == 1)
    return floor + ((fraction > 0.5) | tie_up)


def round_signed(x: Tensor, rounding: Rounding, generator: torch.Generator | None) -> Tensor:
    """Round a float64 tensor to integers; NaN stays NaN, magnitudes are clamped to 2**52."""
    magnitude = x.abs().clamp(max=LARGEST)
    floor = magnitude.floor()
    return torch.copysign(round_up(floor, magnitude - floor, rounding, generator), x)


def check_bits(format_name: str, bits: int, least: int) -> None:
    """Raise ConfigError unless `least` <= bits <= 31."""
    if not least <= bits <= 31:
        raise ConfigError(
            f"The number format {format_name} has {bits} bits, but potstill simulates formats of {least} to 31 bits. "
            "Choose fewer bits, such as int8, q4.4 or bf16."
        )


def check_choice(key: str, value: str, known: object) -> None:
    """Raise ConfigError unless `value` is one of the Literal `known`."""
    names = get_args(known)
    if value not in names:
        raise ConfigError(
            f"{key} of a number format is one of {', '.join(names)}, not '{value}'.{did_you_mean(value, names)}"
        )

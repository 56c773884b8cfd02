"""Parsing of number formats from text."""

from __future__ import annotations

import re
from typing import Protocol, cast

import torch
from torch import Tensor

from potstill.compress.formats.fixed import FixedFormat
from potstill.compress.formats.floating import FloatFormat, FloatOverflow, Specials
from potstill.compress.formats.integer import IntegerFormat, IntegerOverflow
from potstill.compress.formats.rounding import Rounding
from potstill.errors import ConfigError, did_you_mean


class NumberFormat(Protocol):
    """The interface of all formats."""

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def range(self) -> tuple[float, float]: ...

    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...


# common names, and the 8-, 6- and 4-bit formats of the Open Compute Project; every other eXmY is IEEE-like
NAMED = {
    "fp16": "e5m10ieee",
    "bf16": "e8m7ieee",
    "tf32": "e8m10ieee",
    "e5m2": "e5m2ieee",
    "e4m3": "e4m3fn",
    "e3m2": "e3m2finite",
    "e2m3": "e2m3finite",
    "e2m1": "e2m1finite",
}
INTEGER = re.compile(r"(u?)int(\d+)")
FIXED = re.compile(r"(u?)(?:q|fixed)(\d+)\.(\d+)")
FLOAT = re.compile(r"e(\d+)m(\d+)(ieee|fn|finite)?")


def parse_format(
    text: str, *, rounding: Rounding = "nearest", overflow: IntegerOverflow | FloatOverflow = "saturate"
) -> NumberFormat:
    """Return the number format `text`: int8, uint4, q4.4 (or fixed4.4), uq0.8, e4m3, e5m2, e3m4, fp16, bf16.

    Integers have scale 1; `IntegerFormat.fit` returns another. Float formats take a suffix for the set of special
    values: e4m3ieee, e4m3fn, e2m1finite.

    Raises:
        ConfigError: the text is not a format, or the format has too many or too few bits.
    """
    word = NAMED.get(text.strip().lower(), text.strip().lower())
    # The formats check rounding and overflow themselves, because both may come from text.
    integer_overflow, float_overflow = cast(IntegerOverflow, overflow), cast(FloatOverflow, overflow)
    if match := INTEGER.fullmatch(word):
        return IntegerFormat(int(match[2]), not match[1], rounding=rounding, overflow=integer_overflow)
    if match := FIXED.fullmatch(word):
        return FixedFormat(int(match[2]), int(match[3]), not match[1], rounding=rounding, overflow=integer_overflow)
    if match := FLOAT.fullmatch(word):
        specials = cast(Specials, match[3] or "ieee")
        return FloatFormat(int(match[1]), int(match[2]), specials, rounding=rounding, overflow=float_overflow)
    if word in ("fp32", "float32"):
        raise ConfigError("The number format fp32 has 32 bits and is the default: leave out the format.")
    known = [*NAMED, "int8", "uint8", "int4", "uint4", "q4.4", "uq4.4"]
    raise ConfigError(
        f"'{text}' is not a number format.{did_you_mean(word, known)} Write an integer as int8 or uint4, fixed point "
        "as q4.4 or uq4.4, floating point as e4m3 (4 exponent and 3 mantissa bits), fp16 or bf16."
    )

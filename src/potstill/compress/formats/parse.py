"""From text to a number format, with one sentence for every way to mistype it."""

from __future__ import annotations

import re
from typing import Any, Protocol

import torch
from torch import Tensor

from potstill.compress.formats.fixed import FixedFormat
from potstill.compress.formats.floating import FloatFormat, FloatOverflow
from potstill.compress.formats.integer import IntegerFormat, IntegerOverflow
from potstill.compress.formats.rounding import Rounding
from potstill.errors import ConfigError, did_you_mean


class NumberFormat(Protocol):
    """What all formats can do."""

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def range(self) -> tuple[float, float]: ...

    def quantize(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...


# names in use, and the 8-, 6- and 4-bit formats of the Open Compute Project; every other eXmY is IEEE-like
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
    """Return the format that `text` names: int8, uint4, q4.4 (or fixed4.4), uq0.8, e4m3, e5m2, e3m4, fp16, bf16.

    Integers come with scale 1; `IntegerFormat.fit` gives them another. Float formats take a suffix where the set of
    special values matters: e4m3ieee, e4m3fn, e2m1finite.

    Raises:
        ConfigError: the text names no format, or one that is too wide or too narrow.
    """
    word = NAMED.get(text.strip().lower(), text.strip().lower())
    how: dict[str, Any] = {"rounding": rounding, "overflow": overflow}  # each format refuses what it does not have
    if found := INTEGER.fullmatch(word):
        return IntegerFormat(int(found[2]), not found[1], **how)
    if found := FIXED.fullmatch(word):
        return FixedFormat(int(found[2]), int(found[3]), not found[1], **how)
    if found := FLOAT.fullmatch(word):
        return FloatFormat(int(found[1]), int(found[2]), **{"specials": found[3] or "ieee", **how})
    if word in ("fp32", "float32"):
        raise ConfigError("The number format fp32 has 32 bits: it is what the model computes in without a format.")
    known = [*NAMED, "int8", "uint8", "int4", "uint4", "q4.4", "uq4.4"]
    raise ConfigError(
        f"'{text}' is no number format.{did_you_mean(word, known)} Write an integer as int8 or uint4, fixed point as "
        "q4.4 or uq4.4, floating point as e4m3 (4 exponent and 3 mantissa bits), fp16 or bf16."
    )

"""The representation of numbers in a number format, bit by bit: sign, exponent, mantissa, value and error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from potstill.compress.formats.fixed import FixedFormat
from potstill.compress.formats.floating import FloatFormat
from potstill.compress.formats.integer import IntegerFormat
from potstill.compress.formats.parse import NumberFormat, parse_format

DEFAULT = ("q4.4", "e4m3", "e5m2", "fp16", "bf16")
"""The default formats."""


def describe(numbers: Sequence[float], formats: Sequence[str | NumberFormat] = DEFAULT) -> dict[str, Any]:
    """Return the representation of every number in every format, as plain values (docs/compression.md lists the keys).

    formats: text for `parse_format` (also used as `title`), or formats. An integer format of scale 1 is fitted to the
    numbers: its codes span the largest magnitude (unsigned: the interval from the smallest, or 0, to the largest).
    Raises `ConfigError` if a text is not a format.
    """
    chosen = {
        (one if isinstance(one, str) else one.name): _fitted(
            parse_format(one) if isinstance(one, str) else one, numbers
        )
        for one in formats
    }
    return {
        "numbers": [{"number": number, "binary": binary(number), **normal_form(number)} for number in numbers],
        "formats": [{"title": title, **facts(one)} for title, one in chosen.items()],
        "values": [{"title": title, **held(number, one)} for number in numbers for title, one in chosen.items()],
    }


def _fitted(number_format: NumberFormat, numbers: Sequence[float]) -> NumberFormat:
    finite = [number for number in numbers if math.isfinite(number)]
    if isinstance(number_format, IntegerFormat) and number_format.scale == 1 and finite:
        return number_format.fit(min(finite), max(finite))
    return number_format


def facts(number_format: NumberFormat) -> dict[str, Any]:
    """Return range, resolution and special values of a format.

    smallest: the smallest positive number. smallest_normal: the smallest normal floating point number. step: the
    distance of adjacent numbers; for floating point relative to the number (`relative_step`, from 1 on).
    """
    low, high = number_format.range
    common = {"format": number_format.name, "bits": number_format.bits, "low": low, "high": high}
    if isinstance(number_format, FloatFormat):
        return common | {
            "kind": "floating",
            "smallest": number_format.smallest,
            "smallest_normal": number_format.smallest_normal,
            "relative_step": 2.0**-number_format.mantissa,
            "exponent_bits": number_format.exponent,
            "mantissa_bits": number_format.mantissa,
            "bias": number_format.bias,
            "has_inf": number_format.specials == "ieee",
            "has_nan": number_format.specials != "finite",
        }
    if isinstance(number_format, FixedFormat):
        step = 2.0**-number_format.fraction
        return common | {"kind": "fixed", "smallest": step, "step": step}
    assert isinstance(number_format, IntegerFormat)
    step = number_format.scale
    return common | {"kind": "integer", "smallest": step, "step": step, "zero_point": number_format.zero_point}


def held(number: float, number_format: NumberFormat) -> dict[str, Any]:
    """Return the stored bits of one number, their parts, the represented value and its error.

    state: "exact", "rounded", "subnormal" (exact or rounded, with a leading 0), "saturated" (too large: the largest
    number is stored), "underflow" (too small: 0 is stored) or "nan".
    """
    x = torch.tensor([number], dtype=torch.float64)
    value = number_format.quantize(x).item()
    code = _code(x, number_format)
    error = abs(value - number) if math.isfinite(number) else None
    return {
        "number": number,
        "format": number_format.name,
        "stored": code,
        **_parts(code, number_format),
        **(normal_form(value, number_format) if isinstance(number_format, FloatFormat) else {}),
        "value": value,
        "absolute_error": error,
        "relative_error": error / abs(number) if error is not None and number else None,
        "state": _state(number, value, number_format),
    }


def _code(x: torch.Tensor, number_format: NumberFormat) -> str | None:
    """Return the stored bits, most significant first; None for NaN in a format without NaN."""
    if x.isnan().item() and not (isinstance(number_format, FloatFormat) and number_format.specials != "finite"):
        return None
    code = int(number_format.encode(x).item())
    return f"{code % (1 << number_format.bits):0{number_format.bits}b}"


def _parts(code: str | None, number_format: NumberFormat) -> dict[str, str]:
    """Return the bits by meaning: sign, exponent, mantissa; or the bits before and after the point."""
    if code is None:
        return {}
    if isinstance(number_format, FloatFormat):
        end = 1 + number_format.exponent
        return {"sign": code[0], "exponent": code[1:end], "mantissa": code[end:]}
    if isinstance(number_format, FixedFormat):
        whole, fraction = code[: number_format.integer], code[number_format.integer :]
        sign = {"sign": code[0]} if number_format.signed else {}
        return {**sign, "integer": whole, "fraction": fraction, "pointed": f"{whole}.{fraction}"}
    assert isinstance(number_format, IntegerFormat)
    unsigned = int(code, 2)
    signed = unsigned - (1 << len(code)) if number_format.signed and code[0] == "1" else unsigned
    return {"code": str(signed)}


def _state(number: float, value: float, number_format: NumberFormat) -> str:
    low, high = number_format.range
    if math.isnan(number):
        return "nan"
    if number != value and (value == high and number > high or value == low and number < low):
        return "saturated"
    if value == 0 and number != 0:
        return "underflow"
    if isinstance(number_format, FloatFormat) and 0 < abs(value) < number_format.smallest_normal:
        return "subnormal"
    return "exact" if value == number else "rounded"


def normal_form(number: float, number_format: FloatFormat | None = None) -> dict[str, Any]:
    """Return the significand (1 <= s < 2) and the power of two of a number: "1.90625 x 2^2" for 7.625.

    number_format: for its subnormals the power is that of the smallest normal number, and the significand below 1.
    """
    if number == 0 or not math.isfinite(number):
        return {"significand": None, "power": None, "normalised": f"{number:g}"}
    unit, power = math.frexp(abs(number))
    power -= 1
    if number_format is not None and abs(number) < number_format.smallest_normal:
        power = round(math.log2(number_format.smallest_normal))
        unit = math.ldexp(abs(number), -power - 1)
    significand = math.copysign(2 * unit, number)
    return {"significand": significand, "power": power, "normalised": f"{significand!r} x 2^{power}"}


def binary(number: float, digits: int = 32) -> str:
    """Return a number in binary with a point, such as 111.101 for 7.625; "..." if it has more digits."""
    if not math.isfinite(number):
        return f"{number:g}"
    whole, rest = int(abs(number)), abs(number) % 1
    fraction = ""
    while rest and len(fraction) < digits:
        rest *= 2
        fraction += str(int(rest))
        rest %= 1
    sign = "-" if number < 0 else ""
    return f"{sign}{whole:b}" + (f".{fraction}" if fraction else "") + ("..." if rest else "")

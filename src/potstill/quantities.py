"""Sizes, times and counts as a user types them: 300kB, 64KiB, 2.5MB, 20M, 2ms, 30 minutes.

Sizes are decimal, as everywhere in potstill: 1 kB = 1,000 B; KiB and MiB are 1,024 B and 1,048,576 B, in which data
sheets of microcontrollers often count. A number without unit is taken in the unit of its setting: bytes, single
things, or the unit that `to_time` is asked for. `words.py` writes such numbers; this reads them. Settings take them
through the types in `config.py`, which make sentences with the key of every `ValueError`.
"""

from __future__ import annotations

import re

SIZES = {"B": 1, "k": 1e3, "kB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
COUNTS = {"k": 1e3, "M": 1e6, "G": 1e9}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SPELLINGS = {"bytes": "B", "byte": "B", "seconds": "s", "second": "s", "sec": "s", "minutes": "min", "minute": "min"}
SPELLINGS |= {"hours": "h", "hour": "h", "milliseconds": "ms", "microseconds": "us", "µs": "us"}
SIZE_HELP = "B, kB, MB or GB (1 kB = 1,000 B), KiB or MiB (1 KiB = 1,024 B)"
COUNT_HELP = "k, M or G (thousand, million, billion), or no unit"
TIME_HELP = "us, ms, s, min or h"

NUMBER = re.compile(r"(?P<number>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*(?P<unit>[^\s\d.,+-]*)", re.IGNORECASE)


def to_bytes(value: str | float) -> int:
    """Return the bytes of "300kB", "64 KiB", "2.5MB" or 300000; raise `ValueError` for anything else."""
    return _whole(_read(value, SIZES, SIZE_HELP, "a size", "300kB"), value, "1 B")


def to_count(value: str | float) -> int:
    """Return the count of "20M", "1.5k" or 20000000; raise `ValueError` for anything else."""
    return _whole(_read(value, COUNTS, COUNT_HELP, "a count", "20M"), value, "1")


def to_time(value: str | float, unit: str) -> float:
    """Return "2ms", "90 s" or "30 minutes" in `unit` ("ms", "s", "min", ...), which a plain number has already.

    Raises `ValueError` for anything else.
    """
    example = {"ms": "2ms", "min": "30min"}.get(unit, f"20{unit}")
    return _read(value, {name: long / TIMES[unit] for name, long in TIMES.items()}, TIME_HELP, "a time", example)


def _read(value: str | float, units: dict[str, float], known: str, what: str, example: str) -> float:
    """Return a positive number, times the factor of its unit if it has one; known: the units, for the message."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not {what}. Write it like {example}.")
    text = value.strip() if isinstance(value, str) else f"{value:f}"
    match = NUMBER.fullmatch(text)
    if match is None:
        reason = " Write decimals with a point, and thousands without a comma." if "," in text else ""
        raise ValueError(f"{value!r} is not {what} above 0. Write it like {example}.{reason}")
    number, unit = float(match["number"]), match["unit"]
    factor = units.get(_spelled(unit, units)) if unit else 1
    if factor is None:
        raise ValueError(f"{value!r} has the unknown unit '{unit}': {what} takes {known}.")
    if not 0 < number < 1e18:
        raise ValueError(f"{value!r} must be above 0 and below 1e18. Write it like {example}.")
    return number * factor


def _spelled(unit: str, units: dict[str, float]) -> str:
    """Return the unit as it is spelled here: 'KB' and 'kb' are kB, 'Minutes' are min."""
    if unit in units:
        return unit
    unit = SPELLINGS.get(unit.lower(), unit)
    return next((name for name in units if name.lower() == unit.lower()), unit)


def _whole(number: float, value: str | float, least: str) -> int:
    """Return the number rounded to single bytes or things: 2.55 times 1e6 is not whole in binary."""
    if number < 1:
        raise ValueError(f"{value!r} is less than {least}.")
    if not isinstance(value, str) and number != round(number):
        raise ValueError(f"{value!r} is not a whole number.")
    return round(number)

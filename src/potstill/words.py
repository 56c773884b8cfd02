"""Numbers as text: counts with their plural, sizes, times, percentages and signed differences; words of commands."""

from __future__ import annotations

import shlex
from datetime import datetime

NBSP = "\N{NO-BREAK SPACE}"  # keeps a figure and its unit on one line
MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(number: float) -> str:
    """Return a count with thousands separators: "1,412,394"."""
    return f"{number:,.0f}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return a count with its noun: "1 seed", "3 seeds", "2 classes".

    several: the plural form of nouns that do not take a plain -s or -es, such as "parties".
    """
    if number == 1:
        return f"1 {noun}"
    hissing = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
    ending = "es" if hissing else "s"
    return f"{count(number)} {several or noun + ending}"


def argument(value: object) -> str:
    """Return a path or value for a command that is printed: in quotes if a shell would not take it as one word."""
    return shlex.quote(str(value))


def size(number: float, space: str = NBSP) -> str:
    """Return a number of bytes with a suitable unit: "812 B", "78 kB", "5.7 MB" (1 kB = 1,000 B)."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{significant(number)}{space}{unit}"
        number /= 1000
    return f"{significant(number)}{space}GB"


def file_size(number: float) -> str:
    """Return `size` with a plain space, for messages."""
    return size(number, " ")


def significant(value: float) -> str:
    """Return two significant digits, and all those before the decimal point: 0.0142 -> "0.014", 812.3 -> "812"."""
    if value >= 9.95:
        return f"{value:,.0f}"
    if value >= 1e-4 or not value:
        return f"{value:.1f}".removesuffix(".0") if value >= 0.995 else f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPT)}"


def signed(points: float, digits: int = 1) -> str:
    """Return a difference with its sign: "+8.4", "−0.3", "0.0"."""
    text = f"{abs(points):.{digits}f}"
    if not float(text):
        return text
    return ("+" if points > 0 else MINUS) + text


def percent(share: float, digits: int = 1) -> str:
    """Return "97.1 %" for 97.12."""
    return f"{share:.{digits}f}{NBSP}%"


def milliseconds(value: float) -> str:
    """Return "0.014 ms" or "12 ms"."""
    return f"{significant(value)}{NBSP}ms"


def duration(seconds: float) -> str:
    """Return "3.2 s", "12 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def ratio(part: float, whole: float) -> str:
    """Return the size of `part` relative to `whole`: "70x smaller", "2.1x larger", "same size"."""
    factor = whole / part
    if 0.95 < factor < 1.05:
        return "same size"
    return f"{significant(factor)}x smaller" if factor > 1 else f"{significant(1 / factor)}x larger"


def date(iso: str) -> str:
    """Return "21 November 2026, 13:00 UTC" for "2026-11-21T13:00:00+00:00"."""
    moment = datetime.fromisoformat(iso)
    zone = (moment.tzname() or "").removesuffix("+00:00")
    return f"{moment.day} {moment:%B %Y, %H:%M} {zone}".strip()

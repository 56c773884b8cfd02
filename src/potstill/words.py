"""Figures as people read them: sizes, times, counts and shares, with as many digits as they deserve."""

from __future__ import annotations

from datetime import datetime

NBSP = "\N{NO-BREAK SPACE}"  # a figure and its unit stay on one line
MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def signed(points: float, digits: int = 1) -> str:
    """Return a difference with its sign: "+8.4", "−0.3", "0.0"."""
    text = f"{abs(points):.{digits}f}"
    if not float(text):
        return text
    return ("+" if points > 0 else MINUS) + text


def percent(share: float, digits: int = 1) -> str:
    """Return "97.1 %" for 97.12."""
    return f"{share:.{digits}f}{NBSP}%"


def size(count: float, space: str = NBSP) -> str:
    """Return bytes in the unit that suits: "812 B", "78 kB", "5.7 MB" (1 kB = 1,000 B)."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{significant(count)}{space}{unit}"
        count /= 1000
    return f"{significant(count)}{space}GB"


def milliseconds(value: float) -> str:
    """Return "0.014 ms" or "12 ms"."""
    return f"{significant(value)}{NBSP}ms"


def significant(value: float) -> str:
    """Return two significant digits, and all those before the decimal point: 0.0142 -> "0.014", 812.3 -> "812"."""
    if value >= 9.95:
        return f"{value:,.0f}"
    if value >= 1e-4 or not value:
        return f"{value:.1f}".removesuffix(".0") if value >= 0.995 else f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPT)}"


def duration(seconds: float) -> str:
    """Return "12 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(number: float) -> str:
    """Return "1,412,394"."""
    return f"{number:,.0f}"


def plural(number: int, one: str, several: str = "") -> str:
    """Return "1 seed" or "3 seeds"."""
    return f"{count(number)} {one if number == 1 else several or one + 's'}"


def share_of(part: float, whole: float) -> str:
    """Return how big `part` is beside `whole`: "1/70", "1/3.9", "the same", "2.1 times"."""
    ratio = whole / part
    if 0.95 < ratio < 1.05:
        return "the same"
    return f"1/{significant(ratio)}" if ratio > 1 else f"{significant(1 / ratio)} times"


def date(iso: str) -> str:
    """Return "21 November 2026, 13:00 UTC" for "2026-11-21T13:00:00+00:00"."""
    moment = datetime.fromisoformat(iso)
    zone = (moment.tzname() or "").removesuffix("+00:00")
    return f"{moment.day} {moment:%B %Y, %H:%M} {zone}".strip()

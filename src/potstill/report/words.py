"""Numbers as text for the report's pages: figures and their units stay on one line, with few digits."""

from __future__ import annotations

from datetime import datetime

from potstill.wording import count, duration, file_size, plural, signed, significant

__all__ = ["count", "date", "duration", "milliseconds", "percent", "plural", "ratio", "signed", "significant", "size"]

NBSP = "\N{NO-BREAK SPACE}"


def percent(share: float, digits: int = 1) -> str:
    """Return "97.1 %" for 97.12."""
    return f"{share:.{digits}f}{NBSP}%"


def size(number: float) -> str:
    """Return `file_size` with a no-break space."""
    return file_size(number).replace(" ", NBSP)


def milliseconds(value: float) -> str:
    """Return "0.014 ms" or "12 ms"."""
    return f"{significant(value)}{NBSP}ms"


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

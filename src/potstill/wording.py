"""Numbers as text: counts with plurals, file sizes, durations, signed differences."""

from __future__ import annotations

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
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count(number)} {several or noun + ending}"


def file_size(size: float) -> str:
    """Return a number of bytes with a suitable unit: "812 B", "78 kB", "5.7 MB" (1 kB = 1,000 B)."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{significant(size)} {unit}"
        size /= 1000
    return f"{significant(size)} GB"


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


def change(points: float, digits: int = 2) -> str:
    """Return a change of accuracy in words: "gained 0.07 points", "lost 1.20 points", "unchanged"."""
    text = f"{abs(points):.{digits}f}"
    if not float(text):
        return "unchanged"
    return f"{'gained' if points > 0 else 'lost'} {text} points"


def duration(seconds: float) -> str:
    """Return "3.2 s", "12 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

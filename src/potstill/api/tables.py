"""Tables as plain values, and the same as text and as HTML: results, terminals and notebooks show these."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


@dataclass(frozen=True)
class Table:
    """headings: of the columns, the first of which holds names; rows: a cell a heading."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


Part = Table | str
"""What a result shows: tables and sentences."""


def as_text(parts: Iterable[Part]) -> str:
    """Return the parts as text for a fixed-width font, each on lines of its own."""
    return "\n".join(part if isinstance(part, str) else _text(part) for part in parts)


def as_html(parts: Iterable[Part]) -> str:
    """Return the parts as HTML that needs no style sheet, every text escaped."""
    return "".join(f"<p>{html.escape(part)}</p>" if isinstance(part, str) else _html(part) for part in parts)


def _text(table: Table) -> str:
    lines = [table.headings, *table.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.headings))]
    text = [
        "  ".join(_aligned(cell, width, place) for place, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([*([table.title] if table.title else []), *(line.rstrip() for line in text)])


def _aligned(cell: str, width: int, place: int) -> str:
    return cell.rjust(width) if place else cell.ljust(width)


def _html(table: Table) -> str:
    caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
    head = _row("th", table.headings)
    return f'<table style="{STYLE}">{caption}{head}{"".join(_row("td", row) for row in table.rows)}</table>'


def _row(tag: str, cells: tuple[str, ...]) -> str:
    style = ("left", *("right",) * (len(cells) - 1))
    inner = "".join(
        f'<{tag} style="text-align:{side};padding:0 .6em">{html.escape(cell)}</{tag}>'
        for cell, side in zip(cells, style, strict=True)
    )
    return f"<tr>{inner}</tr>"

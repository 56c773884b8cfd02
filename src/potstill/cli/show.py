"""How results look in a terminal: tables where they fit, else a line a figure; names are never cut."""

from __future__ import annotations

from rich.measure import Measurement
from rich.table import Table as Drawn

from potstill.api.results import Result
from potstill.api.tables import Table
from potstill.console import PlainConsole


def show(result: Result) -> None:
    """Print the tables and sentences of a result on standard output."""
    console = PlainConsole()
    for part in result.parts():
        if isinstance(part, Table):
            _print_table(console, part)
        else:
            console.print(part, soft_wrap=True)


def _print_table(console: PlainConsole, table: Table) -> None:
    if table.title:  # beside the table, which would fold a path at its own width
        console.print(table.title, soft_wrap=True)
    drawn = _drawn(table)
    width = Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum
    if width <= console.width:
        console.print(drawn)
        return
    for line in (line for row in table.rows for line in _lines(table.headings, row)):
        console.print(line, soft_wrap=True)


def _drawn(table: Table) -> Drawn:
    drawn = Drawn()
    for place, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _lines(headings: tuple[str, ...], row: tuple[str, ...]) -> list[str]:
    """Return a row as its name and, indented, its figures: for terminals that are narrower than the table."""
    name, *cells = row
    figures = [f"  {heading}: {cell.strip()}" for heading, cell in zip(headings[1:], cells, strict=True) if cell]
    return [name, *figures]

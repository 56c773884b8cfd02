"""CSV files: one reader and one writer for everything that is a table of text.

Cells that a spreadsheet would execute as a formula (they begin with `=`, `+`, `-` or `@` and are not numbers) are
written with a leading apostrophe, and read without it, so that reading returns what was written.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.artifacts import write_text
from potstill.errors import DataError
from potstill.words import plural

SEPARATORS = ",;\t|"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_SEPARATOR_LINE = re.compile(r'\A"?sep=(.)"?\r?\n')
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")


@dataclass(frozen=True)
class Line:
    """The cells of one row, and the line of the file on which it ends, counted from 1."""

    number: int
    cells: list[str]


def read_lines(file: Path) -> list[Line]:
    """Return the non-empty rows of a CSV file, including its header.

    The text is UTF-8, with or without a byte order mark. The separator is the most frequent one of comma, semicolon,
    tab and bar in the first line, outside quotation marks. Raises `DataError` if the file cannot be read.
    """
    text = _SEPARATOR_LINE.sub("", _text(file))  # the first line that Excel writes and reads, in place of a header
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(file, text))
    return list(_lines(file, reader))


def _separator(file: Path, text: str) -> str:
    header = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    preferred = "\t" if file.suffix.lower() == ".tsv" else ","  # if the header has none: a single column
    return max(preferred + SEPARATORS, key=header.count)


def _lines(file: Path, reader: Any) -> Iterator[Line]:
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Line(reader.line_num, [unescaped(cell) for cell in cells])
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num}: {error}. It is not a CSV file, or a quotation mark is missing."
        ) from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not text in UTF-8 (byte {error.start + 1} is 0x{error.object[error.start]:02x}). Save it as "
            "UTF-8; in a spreadsheet the format is called 'CSV UTF-8'."
        ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def split_header(file: Path, lines: Sequence[Line]) -> tuple[list[str], list[Line]]:
    """Return the names in the first line, and the other lines, each with as many cells as the header.

    Raises `DataError` if there is no header, if it names a column twice, or if a line has another number of cells.
    """
    if not lines:
        raise DataError(f"{file} has no rows.")
    header = [cell.strip() for cell in lines[0].cells]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        count, names = plural(len(twice), "column"), ", ".join(map(repr, twice))
        raise DataError(f"{file} has {count} more than once: {names}. Rename one of them.")
    for line in lines[1:]:
        if len(line.cells) != len(header):
            raise DataError(
                f"{file}, line {line.number}: {plural(len(line.cells), 'field')}, but the header has {len(header)}. "
                "Quote names that contain the separator; leave unknown fields empty."
            )
    return header, list(lines[1:])


def numbered_records(file: Path) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of a CSV file with a header, by column, each with where it is: "line 7".

    Raises like `split_header`.
    """
    header, lines = split_header(file, read_lines(file))
    return [(f"line {line.number}", dict(zip(header, line.cells, strict=True))) for line in lines]


def rows_with(places: Sequence[str]) -> str:
    """Return the subject and verb of a sentence about rows: "48 rows (the first is line 3) have"."""
    if len(places) == 1:
        return f"1 row ({places[0]}) has"
    return f"{len(places):,} rows (the first is {places[0]}) have"


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as the text of a CSV file, with commas and line feeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(escaped, columns))
    writer.writerows(map(escaped, row) for row in rows)
    return text.getvalue()


def write_csv(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as a CSV file, atomically."""
    write_text(file, table_text(columns, rows))


def escaped(cell: Any) -> Any:
    """Return a cell for writing: text that a spreadsheet would treat as a formula gets a leading apostrophe."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unescaped(cell: str) -> str:
    """Return the original cell of `escaped`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

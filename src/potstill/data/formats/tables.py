"""Tables of images: CSV, JSONL and Parquet with a path (or, in Parquet, the image itself), label, split and group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from potstill.artifacts import problems_of
from potstill.data.csv_files import numbered_records, rows_with
from potstill.data.formats.cells import label_of, one_label_each, path_of, text_of
from potstill.data.formats.columns import Columns, columns_of
from potstill.data.formats.folders import SPLIT_NAMES, split_of
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Encoded, Files, Held
from potstill.errors import DataError, did_you_mean
from potstill.progress import note
from potstill.words import plural

_MOST_SHOWN = 5


def list_table(file: Path) -> Listing:
    """Return the listing of a CSV, TSV, JSONL or Parquet file; paths in it are relative to its folder.

    An empty label means unlabelled, an empty split means "train". Raises `DataError` with all invalid rows.
    """
    rows = list(_rows(file))
    if not rows:
        raise DataError(f"{file} has no rows.")
    columns = columns_of(file, [record for _, record in rows])
    entries, contents = _entries(file, rows, columns)
    if contents:
        return Listing(str(file), entries, Held(file, [entry.name for entry in entries], contents))
    entries = _distinct(file, entries)
    source: Encoded = Files(file.parent, [entry.name for entry in entries])
    return Listing(str(file), entries, source)


def _rows(file: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return the rows, each with where it is: "line 7", or in a Parquet file "row 6"."""
    kind = file.suffix.lower()
    if kind == ".parquet":
        return ((f"row {number}", row) for number, row in enumerate(read_parquet(file), start=1))
    if kind in (".csv", ".tsv"):
        return numbered_records(file)
    try:
        return _jsonl(file, file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file} is not text in UTF-8: {error}. Save it as UTF-8.") from error


def _jsonl(file: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: not JSON ({error}). Each line must be an object.") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: not an object such as " + '{"path": "a.jpg", "label": "cat"}.')
        yield f"line {number}", row


def read_parquet(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, with class names instead of Hugging Face's class numbers."""
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]  # optional
    except ImportError as error:
        raise DataError(f"{file} is a Parquet file, which needs pyarrow. Type: pip install pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
        raise DataError(f"{file} cannot be read as Parquet: {error}") from error
    names = _class_names(file, table.schema.metadata or {})
    return [{key: _named(value, names.get(key)) for key, value in row.items()} for row in table.to_pylist()]


class _Feature(BaseModel):
    names: list[str] | None = None


class _Info(BaseModel):
    features: dict[str, _Feature] = {}


class _Metadata(BaseModel):
    info: _Info = _Info()


def _class_names(file: Path, metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the class names by column that Hugging Face stores; none, with a note, if they cannot be read."""
    try:
        stored = _Metadata.model_validate_json(metadata.get(b"huggingface", b"{}"))
    except ValidationError as error:
        note(f"{file}: its class names cannot be read and are ignored: {problems_of(error)}.")
        return {}
    return {key: feature.names for key, feature in stored.info.features.items() if feature.names is not None}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or not isinstance(value, int) or value < 0:
        return value
    return names[value] if value < len(names) else str(value)


def _entries(
    file: Path, rows: list[tuple[str, Mapping[str, Any]]], columns: Columns
) -> tuple[list[Entry], list[bytes]]:
    """Return one entry per row, and the images if the table holds them; one error for all that is wrong."""
    entries, labels, contents = [], [], []
    nameless, wrong = [], {}  # where a path lacks; by each split that is none, where it is
    for number, (place, record) in enumerate(rows):
        path, split = columns.cell("path", record), text_of(columns.cell("split", record)) or "train"
        if isinstance(path, dict) and path.get("bytes"):
            contents.append(path["bytes"])
            path = f"{number}-{path.get('path') or 'image'}"
        path = path_of(path.get("path") if isinstance(path, dict) else path, file.parent)
        if not path:
            nameless.append(place)
        elif not split_of(split):
            wrong.setdefault(split, []).append(place)
        else:
            entries.append(Entry(path, None, split_of(split) or "train", text_of(columns.cell("group", record))))
            labels.append(label_of(columns.cell("label", record), path))
    problems = [f"{file}: {rows_with(nameless)} no path."] if nameless else []
    problems += [
        f"{file}: {rows_with(places)} the split '{split}'; a split must be train, validation or test."
        f"{did_you_mean(split.lower(), SPLIT_NAMES)}"
        for split, places in wrong.items()
    ]
    if contents and len(contents) != len(rows):
        problems.append(f"{file} holds the image itself in some rows and only a path in others; use one of the two.")
    if problems:
        raise DataError(*problems[:_MOST_SHOWN], *([f"(and {len(problems) - 5} more)"] if problems[5:] else []))
    return one_label_each(file, entries, labels), contents


def _distinct(file: Path, entries: list[Entry]) -> list[Entry]:
    """Return each path once; raise `DataError` for paths with two labels or splits."""
    first: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        seen = first.setdefault(entry.name, entry)
        if (seen.label, seen.split) != (entry.label, entry.split):
            problems.append(
                f"{file} lists {entry.name} twice, as '{seen.label}' in {seen.split} and as '{entry.label}' in "
                f"{entry.split}. Keep one row."
            )
    if problems:
        raise DataError(*problems[:_MOST_SHOWN])
    if len(first) < len(entries):
        note(f"{file}: ignored {plural(len(entries) - len(first), 'repeated row')}.")
    return list(first.values())

"""Which columns of a table are path, label, split and group, under the names that people and programs give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.formats.files import is_image_name, some
from potstill.errors import DataError
from potstill.progress import note

_NAMES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
    "label": ("label", "labels", "class", "class_name", "category", "target", "y"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "group_id"),
}
_MOSTLY = 0.9  # share of the cells of a column that are names of images, if it is that of the paths
_ONE_HOT = {0: False, 1: True, "0": False, "1": True, "0.0": False, "1.0": True}  # True and False are equal to 1 and 0


@dataclass(frozen=True)
class Columns:
    """The table's own names of the columns by meaning, and those that are one-hot labels."""

    names: Mapping[str, str]
    one_hot: Sequence[str] = ()

    def cell(self, meaning: str, record: Mapping[str, Any]) -> Any:
        """Return the cell of a row, None if the table has no such column."""
        if meaning == "label" and self.one_hot:
            hot = [column for column in self.one_hot if _ONE_HOT.get(record.get(column))]
            return hot[0] if len(hot) == 1 else hot
        return record.get(self.names[meaning]) if meaning in self.names else None


def columns_of(file: Path, records: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the columns of a table by their meaning; all rows count, since the first may lack some.

    Without a column of a known name, the paths are the only column of names of images, and the labels the only other
    column whose values repeat, or one column of 0 and 1 per class. Raises `DataError` if there are no paths.
    """
    every = list(dict.fromkeys(key for record in records for key in record))
    lower = {str(key).strip().lower(): key for key in reversed(every)}
    names = {}
    for meaning, known in _NAMES.items():
        names |= next(({meaning: lower[name]} for name in known if name in lower), {})
    if "path" not in names:
        names["path"] = _column_of_paths(file, every, records)
    others = [key for key in every if key not in names.values()]
    one_hot: list[str] = []
    if "label" not in names:
        repeating = [key for key in others if _repeats(key, records)]
        one_hot = [key for key in repeating if all(_is_flag(record.get(key)) for record in records)]
        one_hot = one_hot if _is_one_hot(one_hot, records) else []
        if not one_hot and len(others) == 1 and repeating:
            names["label"] = repeating[0]
    _note(file, names, one_hot, [key for key in others if key not in {*names.values(), *one_hot}])
    return Columns(names, one_hot)


def _column_of_paths(file: Path, columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for key in columns:
        cells = [record.get(key) for record in records]
        images = sum(isinstance(cell, str) and is_image_name(cell.strip()) for cell in cells)
        found += [key] if images >= _MOSTLY * len(cells) else []
    if len(found) == 1 and not is_image_name(str(found[0])):
        return found[0]
    raise DataError(
        f"{file} has no column 'path', only: {', '.join(map(str, columns))}. The first row must name the columns: "
        "path, and where known label, split and group."
    )


def _is_flag(cell: Any) -> bool:
    return isinstance(cell, str | int | float) and cell in _ONE_HOT


def _repeats(key: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column has at least two values, each on average at least twice."""
    cells = [str(record[key]) for record in records if record.get(key) not in (None, "")]
    return 2 <= len(set(cells)) <= len(cells) / 2


def _is_one_hot(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> bool:
    return len(columns) > 1 and all(sum(_ONE_HOT[record[key]] for key in columns) <= 1 for record in records)


def _note(file: Path, names: Mapping[str, str], one_hot: Sequence[str], unused: Sequence[str]) -> None:
    for meaning in ("path", "label"):
        if meaning in names and names[meaning].strip().lower() not in _NAMES[meaning]:
            note(f"{file}: the column '{names[meaning]}' is used as '{meaning}'. Rename it to '{meaning}' to be sure.")
    if one_hot:
        note(f"{file}: the columns {some(one_hot)} hold 0 and 1 and are used as one-hot labels.")
    if unused:
        what = "the column" if len(unused) == 1 else "the columns"
        labelled = "label" in names or one_hot
        advice = "" if labelled else " If one of them holds the labels, rename it to 'label'."
        note(f"{file}: ignored {what} {some([str(key) for key in unused])}.{advice}")

"""What somebody else said of the images: a CSV or NPZ file of logits, probabilities or hard labels.

A teacher needs no network that potstill can run. A service that was asked once, a model in another framework or a
person leaves a table; here it becomes logits, matched to the images by name or by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from potstill.data.csv_files import Line, read_lines, split_header
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import plural

ENDINGS = (".csv", ".tsv", ".npz", ".npy")
NAME_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "image_path", "img", "name", "names")
ROW_COLUMNS = ("row", "rows", "index", "idx")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "prediction", "predicted", "category", "target")
LOWEST = float(np.log(np.finfo(np.float32).tiny))
Kind = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True)
class Answers:
    """One answer an image.

    logits: float32 [N, K]. classes: the names of the columns, None where the file has none. names or rows: which
    image each line is about; with neither, line i is image i.
    """

    file: str
    logits: np.ndarray
    classes: tuple[str, ...] | None
    names: tuple[str, ...] | None = None
    rows: np.ndarray | None = None


def is_answers(path: str | Path) -> bool:
    """Tell whether a path names a file of answers."""
    return Path(path).suffix.lower() in ENDINGS


def read_answers(file: Path, *, kind: Kind | None = None, classes: Sequence[str] | None = None) -> Answers:
    """Return the answers in a file.

    A CSV has a header: a column of names (image, path, file ...) or rows (row, index), and a column a class, or one
    of labels (label, class, prediction ...). An NPZ has `logits`, `probabilities` or `labels` [N], and perhaps
    `names` or `rows` and `classes`. kind: what the numbers are; None looks at them. classes: names for the columns of
    a file without, or of the labels. Raises `DataError` where the file is absent or makes no sense.
    """
    if not file.is_file():
        raise DataError(f"There is no file of answers at {file}. Give a CSV or NPZ file, or another teacher.")
    table = _from_arrays(file) if file.suffix.lower() in (".npz", ".npy") else _from_csv(file)
    return _as_logits(table, kind, tuple(classes) if classes else None)


@dataclass
class _Table:
    """What a file holds, not yet understood: `values` [N, K] or `labels`, and which images they are about."""

    file: Path
    values: np.ndarray | None = None
    labels: list[str] | None = None
    classes: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    rows: np.ndarray | None = None
    kind: Kind | None = None


# -- reading -------------------------------------------------------------------------------------------------------


def _from_csv(file: Path) -> _Table:
    lines = read_lines(file)
    if len(lines) < 2:
        raise DataError(f"{file} holds no answers: it has no line below its header.")
    if all(_number(cell) is not None for cell in lines[0].cells):
        return _headless(file, lines)
    header, lines = split_header(file, lines)
    cells = zip(*(line.cells for line in lines), strict=True)
    return _from_columns(file, dict(zip(header, cells, strict=True)))


def _headless(file: Path, lines: list[Line]) -> _Table:
    values = _numbers(file, [line.cells for line in lines])
    if values.shape[1] == 1:
        return _Table(file, labels=[line.cells[0].strip() for line in lines])
    return _Table(file, values=values)


def _from_columns(file: Path, columns: dict[str, tuple[str, ...]]) -> _Table:
    table = _Table(file)
    left = dict(columns)
    if (name := _first(columns, NAME_COLUMNS)) is not None:
        table.names = tuple(left.pop(name))
    elif (name := _first(columns, ROW_COLUMNS)) is not None:
        table.rows = _numbers(file, [[cell] for cell in left.pop(name)])[:, 0].astype(np.int64)
    label = _first(left, LABEL_COLUMNS)
    numeric = {name: cells for name, cells in left.items() if name != label and _number(cells[0]) is not None}
    if len(numeric) >= 2:
        table.classes = tuple(numeric)
        table.values = _numbers(file, list(zip(*numeric.values(), strict=True)))
        unused = [name for name in left if name not in numeric]
        if unused:
            note(f"{file.name}: the columns {', '.join(unused)} are not used; the answers are those of the classes.")
    elif label is not None:
        table.labels = [cell.strip() for cell in left[label]]
    else:
        raise DataError(
            f"{file} has the columns {', '.join(columns)}: neither a column of numbers for each class nor one of "
            f"labels. Name the columns after the classes, or one of them label."
        )
    return table


def _first(columns: Iterable[str], known: Sequence[str]) -> str | None:
    return next((name for name in columns if name.strip().casefold() in known), None)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(file: Path, lines: Sequence[Sequence[str]]) -> np.ndarray:
    try:
        return np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{file}: {error}. Every answer must be a number.") from None


def _from_arrays(file: Path) -> _Table:
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = {"answers": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded}
    except (ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read as arrays without running code: {error}") from None
    table = _Table(file)
    names = {name.casefold(): name for name in arrays}
    for known in ("logits", "probabilities", "probs", "labels", "label", "answers"):
        if known in names:
            _fill(table, known, arrays[names[known]])
            break
    else:
        raise DataError(f"{file} holds {', '.join(arrays)}, but none of logits, probabilities or labels. Rename one.")
    if (name := _first(arrays, NAME_COLUMNS)) is not None:
        table.names = tuple(str(value) for value in arrays[name])
    elif (name := _first(arrays, ROW_COLUMNS)) is not None:
        table.rows = arrays[name].astype(np.int64)
    if "classes" in names:
        table.classes = tuple(str(value) for value in arrays[names["classes"]])
    return table


def _fill(table: _Table, name: str, array: np.ndarray) -> None:
    if array.ndim == 1:
        table.labels = [str(value) for value in array]
        return
    if array.ndim != 2 or name.startswith("label"):
        raise DataError(
            f"{table.file}: '{name}' has the shape {array.shape}; answers are [images, classes] or [images]."
        )
    table.values = array
    kinds: dict[str, Kind] = {"probs": "probabilities", "probabilities": "probabilities", "logits": "logits"}
    table.kind = kinds.get(name)


# -- understanding -------------------------------------------------------------------------------------------------


def _as_logits(table: _Table, kind: Kind | None, classes: tuple[str, ...] | None) -> Answers:
    names = table.classes or classes
    if table.labels is not None:
        logits, names = _one_hot(table, names)
    else:
        logits = _continuous(table, kind or table.kind)
        if names is not None and len(names) != logits.shape[1]:
            raise DataError(
                f"{table.file} has {plural(logits.shape[1], 'column')} of answers for "
                f"{plural(len(names), 'named class')}."
            )
    lines = len(logits)
    if table.names is not None and len(table.names) != lines or table.rows is not None and len(table.rows) != lines:
        raise DataError(f"{table.file} has {plural(lines, 'answer')}, and another number of names or rows.")
    return Answers(str(table.file), logits, names, table.names, table.rows)


def _one_hot(table: _Table, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return logits of certainty for hard labels, which are names or, counted from 0, numbers."""
    assert table.labels is not None
    place = {name: number for number, name in enumerate(classes or sorted(set(table.labels)))}
    if not all(label in place for label in table.labels):
        numbers = [_number(label) for label in table.labels]
        unknown = sorted({label for label in table.labels if label not in place})
        if any(number is None or number % 1 or not 0 <= number < len(place) for number in numbers):
            raise DataError(
                f"{table.file} has labels that are no classes: {', '.join(unknown[:5])}. Classes: {', '.join(place)}."
            )
        chosen = np.array(numbers, dtype=np.int64)
    else:
        chosen = np.array([place[label] for label in table.labels])
    logits = np.full((len(chosen), len(place)), LOWEST, dtype=np.float32)
    logits[np.arange(len(chosen)), chosen] = 0
    return logits, tuple(place)


def _continuous(table: _Table, kind: Kind | None) -> np.ndarray:
    values = np.asarray(table.values, dtype=np.float32)
    if not np.isfinite(values).all():
        line = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise DataError(f"{table.file}: answer {line + 1} is not finite. Remove that line or mend it.")
    sums = values.sum(1)
    positive = values.min() >= 0
    if kind is None:
        percent = positive and np.abs(sums - 100).max() < 1
        kind = "probabilities" if percent or (positive and np.abs(sums - 1).max() < 0.02) else "logits"
        note(f"{table.file.name}: its numbers are taken as {'percent' if percent else kind}.")
    if kind == "logits":
        return values
    if not positive or sums.min() <= 0:
        raise DataError(f"{table.file} is said to hold probabilities, but some are negative or a line is all 0.")
    return np.log(np.maximum(values / sums[:, None], np.finfo(np.float32).tiny))


# -- matching ------------------------------------------------------------------------------------------------------


def matched(answers: Answers, manifest: Manifest) -> np.ndarray:
    """Return for each row of a manifest which answer is about its image, int64 [N], -1 where none is.

    Names are compared in full; where not one is the same, by the last parts of their paths that are unique on both
    sides. Rows count in the order in which the images were read, before any were left out.
    """
    if answers.names is not None:
        return _by_name(answers, [manifest.name(row) for row in range(len(manifest))])
    source = np.array([manifest.source_row(row) for row in range(len(manifest))])
    if answers.rows is None:
        count = len(manifest.source.names)
        if len(answers.logits) != count:
            raise DataError(
                f"{answers.file} has {len(answers.logits)} answers and neither names nor rows, and there are {count} "
                "images: nobody knows which is about which. Add a column `image` with the names of the images."
            )
        return source
    if len(set(answers.rows.tolist())) != len(answers.rows):
        raise DataError(f"{answers.file} has two answers for one row.")
    place = np.full(max(int(answers.rows.max()), int(source.max())) + 1, -1)
    place[answers.rows] = np.arange(len(answers.rows))
    return place[source]


def _by_name(answers: Answers, images: Sequence[str]) -> np.ndarray:
    assert answers.names is not None
    theirs = [name.strip().replace("\\", "/").removeprefix("./") for name in answers.names]
    twice = len(theirs) - len(set(theirs))
    if twice:
        raise DataError(f"{answers.file} has more than one answer for {twice} of its names.")
    for spelled, told in _SPELLINGS:
        place, ours = _unique(map(spelled, theirs)), _unique(map(spelled, images))
        shared = [name for name in ours if name in place]
        if shared:
            if told:
                note(f"{Path(answers.file).name}: images and answers were matched by {told}; their full names differ.")
            break
    found = np.full(len(images), -1)
    found[[ours[name] for name in shared]] = [place[name] for name in shared]
    return found


def _tail(parts: int) -> Callable[[str], str]:
    return lambda name: "/".join(name.split("/")[-parts:])


_SPELLINGS: list[tuple[Callable[[str], str], str]] = [
    (lambda name: name, ""),
    (_tail(3), "the last three parts of their paths"),
    (_tail(2), "folder and file name"),
    (_tail(1), "file name"),
    (lambda name: Path(name).stem, "file name without its ending"),
]


def _unique(names: Iterable[str]) -> dict[str, int]:
    """Return the positions of names that occur once."""
    found: dict[str, int] = {}
    again = set()
    for place, name in enumerate(names):
        if name in found:
            again.add(name)
        found[name] = place
    return {name: place for name, place in found.items() if name not in again}

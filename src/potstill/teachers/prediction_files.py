"""Files of predictions: a CSV or NPZ file of logits, probabilities or hard labels.

The predictions of any teacher, such as a web service, a model in another framework or a person, are converted to
logits and matched to the images by name or by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from potstill import bounded
from potstill.data.csv_files import Line, read_lines, split_header
from potstill.data.manifest import Manifest
from potstill.errors import DataError, UserError
from potstill.progress import note
from potstill.words import plural

ENDINGS = (".csv", ".tsv", ".npz", ".npy")
NAME_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "image_path", "img", "name", "names")
ROW_COLUMNS = ("row", "rows", "index", "idx")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "prediction", "predicted", "category", "target")
LOWEST = float(np.log(np.finfo(np.float32).tiny))
Kind = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True)
class Predictions:
    """One prediction per image.

    logits: float32 [N, K]. classes: names of the columns, None if the file has none. names or rows: the image of each
    line; with neither, line i is image i.
    """

    file: str
    logits: np.ndarray
    classes: tuple[str, ...] | None
    names: tuple[str, ...] | None = None
    rows: np.ndarray | None = None


def is_predictions(path: str | Path) -> bool:
    """Return whether a path is that of a file of predictions."""
    return Path(path).suffix.lower() in ENDINGS


def read_predictions(file: Path, *, kind: Kind | None = None, classes: Sequence[str] | None = None) -> Predictions:
    """Return the predictions in a file.

    A CSV has a header: a column of names (image, path, file ...) or rows (row, index), and a column for each class, or
    one of labels (label, class, prediction ...). An NPZ has `logits` or `probabilities` [N, K] or `labels` [N], and
    optionally `names` or `rows` and `classes`. kind: of the numbers; None detects it. classes: names of unnamed
    columns, or of the labels. Raises `DataError` if the file is missing or invalid.
    """
    if not file.is_file():
        raise DataError(f"There is no file of predictions at {file}. Give a CSV or NPZ file, or another teacher.")
    table = _from_arrays(file) if file.suffix.lower() in (".npz", ".npy") else _from_csv(file)
    return _as_logits(table, kind, tuple(classes) if classes else None)


@dataclass
class _Table:
    """The contents of a file before conversion: `values` [N, K] or `labels`, and the images of the lines."""

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
        raise DataError(f"{file} has no predictions: there is no line below its header.")
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
            note(f"{file.name}: ignoring the columns {', '.join(unused)}, which are not numbers of classes.")
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
        raise DataError(f"{file}: {error}. Every prediction must be a number.") from None


def _from_arrays(file: Path) -> _Table:
    try:
        if file.suffix.lower() == ".npz":
            bounded.check_zip(file)
        loaded = np.load(bounded.regular(file), allow_pickle=False)
        arrays = {"predictions": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded}
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on damaged files
        raise DataError(f"{file} cannot be read as arrays without running code: {error}") from None
    table = _Table(file)
    names = {name.casefold(): name for name in arrays}
    for known in ("logits", "probabilities", "probs", "labels", "label", "predictions"):
        if known in names:
            _fill(table, known, arrays[names[known]])
            break
    else:
        raise DataError(
            f"{file} has the arrays {', '.join(arrays)}, but none is named logits, probabilities or labels. Rename one."
        )
    if (name := _first(arrays, NAME_COLUMNS)) is not None:
        table.names = tuple(str(value) for value in _column(file, name, arrays[name]))
    elif (name := _first(arrays, ROW_COLUMNS)) is not None:
        if arrays[name].dtype.kind not in "iu":
            raise DataError(f"{file}: '{name}' holds {arrays[name].dtype}, but it must be whole numbers.")
        table.rows = _column(file, name, arrays[name]).astype(np.int64)
    if "classes" in names:
        table.classes = tuple(str(value) for value in _column(file, "classes", arrays[names["classes"]]))
    return table


def _column(file: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise DataError(f"{file}: '{name}' has the shape {array.shape}, but it must be one value per image or class.")
    return array


def _fill(table: _Table, name: str, array: np.ndarray) -> None:
    if array.ndim == 1:
        table.labels = [str(value) for value in array]
        return
    if array.ndim != 2 or name.startswith("label"):
        raise DataError(
            f"{table.file}: '{name}' has the shape {array.shape}, but it must be [images, classes] or [images]."
        )
    if array.dtype.kind not in "fiub":
        raise DataError(f"{table.file}: '{name}' holds {array.dtype}, but predictions must be numbers.")
    kinds: dict[str, Kind] = {"probs": "probabilities", "probabilities": "probabilities", "logits": "logits"}
    table.values, table.kind = array, kinds.get(name)


# -- conversion ----------------------------------------------------------------------------------------------------


def _as_logits(table: _Table, kind: Kind | None, classes: tuple[str, ...] | None) -> Predictions:
    names = table.classes or classes
    if table.labels is not None:
        logits, names = _one_hot(table, names)
    else:
        logits = _continuous(table, kind or table.kind)
        if names is not None and len(names) != logits.shape[1]:
            raise DataError(
                f"{table.file} has {plural(logits.shape[1], 'column')} of predictions for "
                f"{plural(len(names), 'named class')}. Name every column."
            )
    lines = len(logits)
    if table.names is not None and len(table.names) != lines or table.rows is not None and len(table.rows) != lines:
        raise DataError(f"{table.file} has {plural(lines, 'prediction')}, but another number of names or rows.")
    return Predictions(str(table.file), logits, names, table.names, table.rows)


def _one_hot(table: _Table, classes: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return logits of probability 1 for hard labels, which are names or numbers, counted from 0."""
    assert table.labels is not None
    if not table.labels:
        raise DataError(f"{table.file} has no predictions.")
    place = {name: number for number, name in enumerate(classes or sorted(set(table.labels)))}
    if not all(label in place for label in table.labels):
        numbers = [_number(label) for label in table.labels]
        unknown = sorted({label for label in table.labels if label not in place})
        if any(number is None or number % 1 or not 0 <= number < len(place) for number in numbers):
            raise DataError(
                f"{table.file} has labels that are not classes: {', '.join(unknown[:5])}. Classes: {', '.join(place)}."
            )
        chosen = np.array(numbers, dtype=np.int64)
    else:
        chosen = np.array([place[label] for label in table.labels])
    logits = np.full((len(chosen), len(place)), LOWEST, dtype=np.float32)
    logits[np.arange(len(chosen)), chosen] = 0
    return logits, tuple(place)


def _continuous(table: _Table, kind: Kind | None) -> np.ndarray:
    values = np.asarray(table.values, dtype=np.float32)
    if not values.size:
        raise DataError(f"{table.file} has no predictions: its shape is {values.shape}.")
    if not np.isfinite(values).all():
        line = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise DataError(f"{table.file}: prediction {line + 1} is not finite. Correct or remove that line.")
    sums = values.sum(1)
    positive = values.min() >= 0
    if kind is None:
        percent = positive and np.abs(sums - 100).max() < 1
        kind = "probabilities" if percent or (positive and np.abs(sums - 1).max() < 0.02) else "logits"
        note(f"{table.file.name}: detected {'probabilities in percent' if percent else kind}.")
    if kind == "logits":
        return values
    if not positive or sums.min() <= 0:
        raise DataError(
            f"{table.file} must have probabilities, but some are negative or a line is all 0. For logits, set "
            "teacher.card.output=logits."
        )
    return np.log(np.maximum(values / sums[:, None], np.finfo(np.float32).tiny))


# -- matching ------------------------------------------------------------------------------------------------------


def matched(predictions: Predictions, manifest: Manifest) -> np.ndarray:
    """Return the index of the prediction for each row of a manifest, int64 [N], -1 for none.

    Full names are compared; if none match, the last parts of their paths that are unique in both. Row numbers are in
    the order in which the images were read, before any were excluded.
    """
    if predictions.names is not None:
        return _by_name(predictions, predictions.names, [manifest.name(row) for row in range(len(manifest))])
    source = np.array([manifest.source_row(row) for row in range(len(manifest))])
    if predictions.rows is None:
        count = len(manifest.source.names)
        if len(predictions.logits) != count:
            raise DataError(
                f"{predictions.file} has {len(predictions.logits)} predictions without names or rows, but there are "
                f"{count} images, so they cannot be matched. Add a column `image` with the names of the images."
            )
        return source
    if len(set(predictions.rows.tolist())) != len(predictions.rows):
        raise DataError(f"{predictions.file} has two predictions for one row. Remove one of them.")
    place = np.full(max(int(predictions.rows.max()), int(source.max())) + 1, -1)
    place[predictions.rows] = np.arange(len(predictions.rows))
    return place[source]


def _by_name(predictions: Predictions, names: Sequence[str], images: Sequence[str]) -> np.ndarray:
    names = [name.strip().replace("\\", "/").removeprefix("./") for name in names]
    twice = len(names) - len(set(names))
    if twice:
        raise DataError(f"{predictions.file} has several predictions for {twice} of its names. Keep one for each.")
    result = np.full(len(images), -1)
    for spelled, title in _SPELLINGS:
        in_file, in_data = _unique(map(spelled, names)), _unique(map(spelled, images))
        shared = [name for name in in_data if name in in_file]
        if shared:
            if title:
                note(f"{Path(predictions.file).name}: matched to the images by {title}, because full names differ.")
            result[[in_data[name] for name in shared]] = [in_file[name] for name in shared]
            break
    return result


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
    result: dict[str, int] = {}
    again = set()
    for place, name in enumerate(names):
        if name in result:
            again.add(name)
        result[name] = place
    return {name: place for name, place in result.items() if name not in again}

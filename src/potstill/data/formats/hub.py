"""Hugging Face data sets: a name on the hub, a folder from `save_to_disk`, or a folder of Parquet files.

Needs the package `datasets` (for names and saved folders) or pyarrow (for Parquet), which are optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.data.formats.folders import split_of
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Encoded, Held
from potstill.data.formats.tables import list_table
from potstill.errors import DataError
from potstill.offline import is_offline
from potstill.progress import note

PREFIX = "hf:"


class Hub(Encoded):
    """A `Source` over `datasets.Dataset`s with one column of undecoded images; `places` are (data set, row)."""

    def __init__(self, origin: Path, names: Sequence[str], sets: Sequence[Any], places: Sequence[tuple[int, int]]):
        self.origin, self.names, self._sets, self._places = origin, names, sets, places

    def content(self, row: int) -> bytes:
        which, position = self._places[row]
        (image,) = self._sets[which][position].values()
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    def place(self, row: int) -> tuple[str, str]:
        return str(self.origin), self.names[row]

    def state(self, row: int) -> None:
        return None

    def only(self, rows: Sequence[int]) -> Held:
        return Held(self.origin, [self.names[row] for row in rows], [self.content(row) for row in rows])


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def list_hub(name: str) -> Listing:
    """Return the listing of a data set by its name, "hf:user/name" or "hf:user/name:configuration"."""
    if is_offline():
        raise DataError(
            f"{name} would be downloaded, which --offline forbids. Leave --offline out, or save the data set with "
            "save_to_disk and give that folder."
        )
    path, _, configuration = name.removeprefix(PREFIX).partition(":")
    datasets = _library(name)
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the library's errors have no common base class
        raise DataError(f"The data set {name} cannot be loaded: {error}") from error
    return _listing(name, loaded, datasets)


def list_saved(folder: Path) -> Listing:
    """Return the listing of a folder written by `save_to_disk`."""
    datasets = _library(str(folder))
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # see list_hub
        raise DataError(f"{folder} cannot be loaded as a saved data set: {error}") from error
    return _listing(str(folder), loaded, datasets)


def _library(name: str) -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # optional
    except ImportError as error:
        raise DataError(f"{name} needs Hugging Face's package datasets. Type: pip install datasets") from error
    return datasets


def _listing(name: str, loaded: Any, datasets: Any) -> Listing:
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    entries, sets, places = [], [], []
    for key, part in parts.items():
        split = split_of(key)
        if split is None and key.lower() not in ("unlabelled", "unlabeled", "unsupervised"):
            note(f"{name}: ignored the split '{key}', which is not a train, validation or test split.")
            continue
        image, label = _columns(name, part, datasets)
        sets.append(part.select_columns([image]).cast_column(image, datasets.Image(decode=False)))
        for position, text in enumerate(_labels(part, label, datasets)):
            entries.append(Entry(f"{key}/{position}", text if split else None, split or "train"))
            places.append((len(sets) - 1, position))
    return Listing(name, entries, Hub(Path(name), [entry.name for entry in entries], sets, places))


def _columns(name: str, part: Any, datasets: Any) -> tuple[str, str | None]:
    images = [key for key, kind in part.features.items() if isinstance(kind, datasets.Image)]
    classes = [key for key, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)]
    if not images:
        raise DataError(f"{name} has no image column, only: {', '.join(part.features)}.")
    label = "label" if "label" in part.features else next(iter(classes), None)
    if len(images) > 1 or len(classes) > 1:
        note(f"{name} has several candidate columns: using '{images[0]}' for images and '{label}' for labels.")
    return images[0], label


def _labels(part: Any, label: str | None, datasets: Any) -> list[str | None]:
    if label is None:
        return [None] * len(part)
    feature = part.features[label]
    known = [None if value in (None, -1) else value for value in part[label]]
    text = feature.int2str if isinstance(feature, datasets.ClassLabel) else str
    return [None if value is None else text(value) for value in known]


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, or of its folder `data`, as data sets are stored on the hub."""
    return sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")])


def list_parquet_folder(folder: Path, files: Sequence[Path]) -> Listing:
    """Return the listing of Parquet files whose names begin with their split, as in train-00000-of-00002.parquet."""
    entries: list[Entry] = []
    contents: list[bytes] = []
    for file in files:
        split = split_of(file.name.partition("-")[0].partition(".")[0])
        part = list_table(file)
        if not isinstance(part.source, Held):
            raise DataError(f"{file} holds paths, not images. Give the path of this table instead of the folder.")
        for entry, content in zip(part.entries, part.source.contents, strict=True):
            entries.append(Entry(f"{file.name}/{entry.name}", entry.label, split or entry.split, entry.group))
            contents.append(content)
    return Listing(str(folder), entries, Held(folder, [entry.name for entry in entries], contents))

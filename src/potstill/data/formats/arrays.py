"""Images in arrays: in memory, in .npz and .npy files, or a folder of .npy files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from potstill import bounded
from potstill.data.formats.assemble import manifest_of
from potstill.data.formats.files import natural
from potstill.data.formats.folders import split_of
from potstill.data.formats.rules import refuse_leaks, refuse_unusable
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import plural

_IMAGES, _LABELS = ("x", "image", "images", "data"), ("y", "label", "labels", "target", "targets")


class Arrays:
    """A `Source` over one array, uint8 [N, H, W, C]."""

    def __init__(self, images: np.ndarray, names: Sequence[str]) -> None:
        self.images, self.names = images, names

    def image(self, row: int) -> np.ndarray:
        return self.images[row]

    def digest(self, row: int) -> bytes:
        return hashlib.sha256(self.images[row].tobytes()).digest()

    def only(self, rows: Sequence[int]) -> Arrays:
        return Arrays(self.images[list(rows)], [self.names[row] for row in rows])


def from_arrays(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    splits: Sequence[str] | np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    *,
    root: str = "arrays",
    allow_empty: bool = False,
    trains: bool = True,
) -> Manifest:
    """Return a manifest of images in memory.

    images: uint8, [N, H, W] or [N, H, W, C] with C = 1 or 3. labels: int [N], UNLABELLED (-100) if unknown; None
    means that all are unlabelled. splits: names from SPLITS, or their indices; None puts all into "train". classes:
    a name for each label 0..K-1; by default the labels as text. allow_empty, trains: as in `read_manifest`.
    Raises `DataError` if these do not match each other.
    """
    images = _as_pixels(images, root)
    count = len(images)
    label = np.full(count, UNLABELLED) if labels is None else np.asarray(labels)
    split = ["train"] * count if splits is None else [_split_name(s) for s in np.asarray(splits).tolist()]
    for what, length in (("labels", len(label)), ("splits", len(split))):
        if length != count:
            raise DataError(f"{root} has {plural(count, 'image')} and {length} {what}; there must be one per image.")
    names, text = _class_texts(label, classes, root)
    numbers = {s: iter(range(count)) for s in SPLITS}
    rows = [f"{s}/{next(numbers[s])}" for s in split]
    source = Arrays(images, rows)
    digests = [source.digest(row) for row in range(count)]
    manifest = manifest_of(source, digests, labels=text, splits=split, root=root, classes=names)
    if trains:
        refuse_unusable(manifest, allow_empty=allow_empty)
        refuse_leaks(manifest, most=1.0)  # only noted: an array has no files that a new table could leave out
    return manifest


def _split_name(value: str | int) -> str:
    return SPLITS[value] if isinstance(value, int) else value


def _class_texts(label: np.ndarray, classes: Sequence[str] | None, name: str) -> tuple[list[str], list[str | None]]:
    """Return the class names in their order, and each row's name or None."""
    labels: list[int] = label.tolist()
    present = sorted(set(labels) - {UNLABELLED}, key=lambda value: natural(str(value)))
    if classes is None:
        return [str(value) for value in present], [None if value == UNLABELLED else str(value) for value in labels]
    wrong = [value for value in present if not 0 <= value < len(classes)]
    if wrong:
        raise DataError(
            f"{name} has the label {wrong[0]}, but {len(classes)} class names, for labels 0 to {len(classes) - 1}."
        )
    return list(classes), [None if value == UNLABELLED else classes[value] for value in labels]


def _as_pixels(images: np.ndarray, name: str) -> np.ndarray:
    """Return uint8 [N, H, W, C] of images that may be 16-bit, float in 0..1, without channels, or channels first."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"{name} has the shape {list(images.shape)}; images must be [N, H, W] or [N, H, W, C].")
    if images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        note(f"{name} is channels first, {list(images.shape)}; converted to channels last.")
        images = np.moveaxis(images, 1, 3)
    if images.shape[3] not in (1, 3, 4):
        raise DataError(f"{name} has {images.shape[3]} channels; images must have 1 (grey), 3 (RGB) or 4 (RGBA).")
    return _on_white(_as_uint8(images, name))


def _on_white(images: np.ndarray) -> np.ndarray:
    if images.shape[3] < 4:
        return np.ascontiguousarray(images)
    alpha = images[..., 3:] / 255.0
    return np.rint(images[..., :3] * alpha + 255.0 * (1 - alpha)).astype(np.uint8)


def _as_uint8(images: np.ndarray, name: str) -> np.ndarray:
    kind = images.dtype
    if kind == np.uint8:
        return images
    white = {"b": 1.0, "f": 1.0, "u": 65535.0}.get(kind.kind)
    if white is None or (kind.kind == "u" and kind != np.uint16):
        raise DataError(f"{name} holds {kind}; images must be uint8, uint16, or floats from 0 to 1.")
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (low >= 0 and high <= white):
        raise DataError(f"{name} holds {kind} values from {low:g} to {high:g}; floats must be from 0 to 1.")
    note(f"{name} holds {kind}; values 0 to {white:g} are scaled to 0 to 255.")
    return np.rint(images * (255.0 / white)).astype(np.uint8)


def read_array_file(path: Path, **rules: bool) -> Manifest:
    """Return the manifest of an .npz file, of one .npy file (unlabelled), or of a folder of .npy files.

    Arrays are identified by name: x, images or data, and y or labels, each alone or with train, val or test before or
    after (`x_train`, `train_images`); `classes` may hold the class names. rules: allow_empty, trains of `from_arrays`.
    """
    return _of_named(_load(path), str(path), rules)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.is_dir():
            return {file.stem: _array(file) for file in sorted(path.glob("*.npy"))}
        if path.suffix.lower() == ".npy":
            return {"images": _array(path)}
        bounded.check_zip(path)
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on damaged files
        raise DataError(f"{path} cannot be read as arrays: {error}. Save it again with numpy.savez.") from error


def _array(path: Path) -> np.ndarray:
    with bounded.regular(path).open("rb") as handle:
        return np.load(handle, allow_pickle=False)


def _of_named(arrays: Mapping[str, np.ndarray], name: str, rules: Mapping[str, bool]) -> Manifest:
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        split, what = _meaning(key)
        if what:
            found.setdefault(split, {})[what] = value
        elif key not in ("classes", "class_names"):
            note(f"{name}: ignored the array '{key}', whose name means neither images nor labels.")
    parts = {split: found[split] for split in SPLITS if split in found}
    for split, part in parts.items():
        if "images" not in part:
            raise DataError(f"{name} has labels but no images for the {split} split.")
    if not parts:
        raise DataError(f"{name} holds no array named x, images or data, only: {', '.join(arrays) or 'nothing'}.")
    return _joined(parts, arrays, name, rules)


def _meaning(key: str) -> tuple[str, str | None]:
    words = [word for word in re.split(r"[\W_]+", key.lower()) if word]
    split = next((split for word in words if (split := split_of(word))), "train")
    rest = [word for word in words if not split_of(word)]
    what = dict.fromkeys(_IMAGES, "images") | dict.fromkeys(_LABELS, "labels")
    return split, what.get(rest[0]) if len(rest) == 1 else None


def _joined(
    parts: Mapping[str, Mapping[str, np.ndarray]],
    arrays: Mapping[str, np.ndarray],
    name: str,
    rules: Mapping[str, bool],
) -> Manifest:
    images = {split: _as_pixels(part["images"], f"{name} ({split})") for split, part in parts.items()}
    shapes = {value.shape[1:] for value in images.values()}
    if len(shapes) > 1:
        raise DataError(f"{name} has splits of different image sizes: {sorted(map(list, shapes))}.")
    labels = [_labels_of(part, len(images[split]), f"{name} ({split})") for split, part in parts.items()]
    splits = [split for split in images for _ in range(len(images[split]))]
    classes = arrays.get("classes", arrays.get("class_names"))
    return from_arrays(
        np.concatenate(list(images.values())),
        np.concatenate(labels),
        splits,
        None if classes is None else [str(value) for value in classes.tolist()],
        root=name,
        **rules,
    )


def _labels_of(part: Mapping[str, np.ndarray], count: int, name: str) -> np.ndarray:
    labels = part.get("labels")
    if labels is None:
        return np.full(count, UNLABELLED)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype} {list(labels.shape)}; they must be one integer per image.")
    if len(labels) != count:
        raise DataError(f"{name} has {plural(count, 'image')} and {len(labels)} labels; there must be one per image.")
    return labels.astype(np.int64)

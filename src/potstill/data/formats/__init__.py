"""Every format of images becomes one `Manifest` here, and nothing downstream knows which it was."""

from __future__ import annotations

from pathlib import Path

from potstill.data.formats.arrays import from_arrays, read_array_file
from potstill.data.formats.files import is_image_name
from potstill.data.formats.folders import read_folder
from potstill.data.formats.idx import idx_files, read_idx
from potstill.data.manifest import Manifest
from potstill.errors import DataError, did_you_mean

__all__ = ["from_arrays", "read_manifest"]


def read_manifest(path: str | Path, *, group: str | None = None, allow_empty: bool = False) -> Manifest:
    """Return the manifest of the images at `path`, whatever their format.

    path: a folder of one folder per class (flat, or under train, validation and test), of `labelled/` and
    `unlabelled/`, of images alone (unlabelled), of MNIST's IDX files or of .npy files; an .npz or .npy file.
    group: a regular expression over file names; images whose names give the same first group stay together in
    every split. allow_empty: accept a class without images.
    Raises `DataError` that names everything found wrong; up to 1 % of unreadable images are skipped and told.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(_missing(path))
    if path.is_file():
        return _read_file(path, allow_empty)
    if idx_files(path):
        return read_idx(path, allow_empty=allow_empty)
    if any(path.glob("*.npy")):
        return read_array_file(path, allow_empty=allow_empty)
    return read_folder(path, group=group, allow_empty=allow_empty)


def _read_file(path: Path, allow_empty: bool) -> Manifest:
    if path.suffix.lower() in (".npz", ".npy"):
        return read_array_file(path, allow_empty=allow_empty)
    if is_image_name(path.name):
        raise DataError(f"{path} is a single image, and data are many. Give the folder above its class folder.")
    raise DataError(
        f"{path} is no format of images that potstill reads: a folder, an .npz or .npy file, or MNIST's IDX files."
    )


def _missing(path: Path) -> str:
    above = path.parent
    near = did_you_mean(path.name, (p.name for p in above.iterdir())) if above.is_dir() else ""
    return f"There is no {path}.{near} Give the folder that holds the images."

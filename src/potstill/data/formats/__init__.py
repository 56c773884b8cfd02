"""Readers of every image format into a `Manifest`; nothing downstream depends on the format."""

from __future__ import annotations

from pathlib import Path

from potstill import bounded
from potstill.data.formats import hub, remote
from potstill.data.formats.archives import is_archive, list_archive, list_shards, shards_in
from potstill.data.formats.arrays import from_arrays, read_array_file
from potstill.data.formats.assemble import manifest_of_listing
from potstill.data.formats.files import is_image_name
from potstill.data.formats.folders import list_folder
from potstill.data.formats.idx import idx_files, read_idx
from potstill.data.formats.listing import Listing
from potstill.data.formats.rules import TABLES
from potstill.data.formats.tables import list_table
from potstill.data.manifest import Manifest
from potstill.errors import DataError, missing
from potstill.progress import note

__all__ = ["from_arrays", "list_images", "read_manifest"]


def read_manifest(
    path: str | Path, *, group: str | None = None, allow_empty: bool = False, trains: bool = True
) -> Manifest:
    """Return the manifest of the images at `path`, whatever their format.

    path: a folder of one folder per class (flat, or under train, validation and test), of `labelled/` and
    `unlabelled/`, of images alone (unlabelled), of MNIST's IDX files, of .npy files, of WebDataset shards or of Parquet
    files; a .csv, .tsv, .jsonl or .parquet table of path, label, split and group; a .tar (.gz, .bz2, .xz) of class
    folders; an .npz or .npy file; "hf:NAME" of a Hugging Face data set, or a folder that one was saved to; a URL
    of WebDataset shards.
    group: which images stay in one split: a regular expression over the path below `path`, whose groups are the same
    for images that belong together, "near-copies" or "exif" (`groups.groups_of`). allow_empty: accept a class without
    images.
    trains: False for images that are only measured: they may lack classes, and need no train split.
    Raises `DataError` with all problems at once; up to 1 % of unreadable images are skipped with a note.
    """
    images = list_images(path, allow_empty=allow_empty, trains=trains)
    if isinstance(images, Listing):
        return manifest_of_listing(images, group=group, allow_empty=allow_empty, trains=trains)
    if group is not None:
        note(f"--group is ignored: the images of {path} are in arrays and have no file names.")
    return images


def list_images(path: str | Path, *, allow_empty: bool = False, trains: bool = True) -> Listing | Manifest:
    """Return the listing of the images, before they are read; for arrays the manifest."""
    if remote.is_url(str(path)):
        return remote.list_remote(str(path))
    if str(path).startswith(hub.PREFIX):
        return hub.list_hub(str(path))
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{missing(path)} Give the folder that holds the images.")
    read = _of_folder if path.is_dir() else _of_file
    return read(path, allow_empty=allow_empty, trains=trains)


def _of_folder(path: Path, **rules: bool) -> Listing | Manifest:
    if idx_files(path):
        return read_idx(path, **rules)
    if any(path.glob("*.npy")):
        return read_array_file(path, **rules)
    if hub.is_saved(path):
        return hub.list_saved(path)
    listing = list_folder(path)
    if not listing.entries:
        if shards := shards_in(path):
            return list_shards(path, shards)
        if tables := hub.parquet_files(path):
            return hub.list_parquet_folder(path, tables)
    return listing


def _of_file(path: Path, **rules: bool) -> Listing | Manifest:
    bounded.regular(path)
    ending = path.suffix.lower()
    if ending in (".npz", ".npy"):
        return read_array_file(path, **rules)
    if ending in TABLES:
        return list_table(path)
    if is_archive(path):
        return list_archive(path)
    if is_image_name(path.name):
        raise DataError(f"{path} is a single image, not a data set. Give the folder above its class folder.")
    raise DataError(
        f"{path} is not in a supported format. Supported are a folder, a .csv, .jsonl or .parquet table, a .tar, an "
        ".npz or .npy file, and MNIST's IDX files."
    )

"""Folders of images: one folder per class, with or without split folders, with or without unlabelled images.

Labels and splits come from folder names only, never from file names: "train.png" may show a railway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from potstill.data.formats.files import Folder, scan
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Files
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import plural

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "validation"
)
_LABELLED, _UNLABELLED = ("labelled", "labeled"), ("unlabelled", "unlabeled")


def list_folder(root: Path) -> Listing:
    """Return the listing of a folder on disk; raise `DataError` if its layout is not understood."""
    top, left = scan(root)
    _note_siblings(root)
    entries = list(entries_of(str(root), top))
    return Listing(str(root), entries, Files(root, [entry.name for entry in entries]), class_names(top), left)


def split_of(name: str) -> str | None:
    """Return the split that a folder name means, None if it is not the name of a split."""
    return SPLIT_NAMES.get(name.lower())


def entries_of(where: str, top: Folder) -> Iterator[Entry]:
    """Yield the images of a tree with label and split from the folder names; `where` is used in messages."""
    for folder in top.folders:
        if folder.name.lower() in _UNLABELLED:
            yield from (Entry(f"{folder.name}/{name}") for name in folder)
    rest = _not_unlabelled(top)
    special = [folder for folder in rest if _special(folder)]
    if not rest:
        yield from (Entry(name) for name in top.images)
        return
    _beside(where, top.images)
    if special:
        _refuse_mixture(where, rest, special)
        yield from _of_splits(where, special)
    else:
        _refuse_wrong_level(where, rest)
        yield from _of_classes(rest, "", "train")


def _of_classes(folders: list[Folder], prefix: str, split: str) -> Iterator[Entry]:
    for folder in folders:
        label = None if folder.name.lower() in _UNLABELLED else folder.name
        yield from (Entry(f"{prefix}{folder.name}/{name}", label, split) for name in folder)


def _of_splits(where: str, folders: list[Folder]) -> Iterator[Entry]:
    _refuse_twice(where, folders)
    for folder in folders:
        if folder.name.lower() in _LABELLED:
            yield from _of_labelled(where, folder)
            continue
        here, split = f"{where}/{folder.name}", split_of(folder.name) or "train"
        if folder.folders:
            _refuse_wrong_level(here, folder.folders)
            _beside(here, folder.images)
        elif folder.images:
            images = plural(len(folder.images), "image")
            note(f"{here} has no class folders: its {images} will be used without labels.")
            yield from (Entry(f"{folder.name}/{name}", None, split) for name in folder.images)
        yield from _of_classes(folder.folders, f"{folder.name}/", split)


def _of_labelled(where: str, folder: Folder) -> Iterator[Entry]:
    """Yield the images in `labelled/`: class folders, or split folders of them."""
    for entry in entries_of(f"{where}/{folder.name}", folder):
        yield Entry(f"{folder.name}/{entry.name}", entry.label, entry.split)


def class_names(top: Folder) -> list[str]:
    """Return the names of all class folders, including empty ones."""
    names: dict[str, None] = {}
    for folder in _not_unlabelled(top):
        names |= dict.fromkeys(class_names(folder)) if _special(folder) else {folder.name: None}
    return list(names)


def _not_unlabelled(top: Folder) -> list[Folder]:
    return [folder for folder in top.folders if folder.name.lower() not in _UNLABELLED]


def _special(folder: Folder) -> bool:
    return split_of(folder.name) is not None or folder.name.lower() in _LABELLED


def _beside(where: str, images: list[str]) -> None:
    if images:
        note(
            f"{where}: ignored {plural(len(images), 'image')} outside the class folders, such as {images[0]}. "
            "Move them into a folder named 'unlabelled' to use them without labels."
        )


def _note_siblings(root: Path) -> None:
    here = root.absolute()
    siblings = (path for path in here.parent.iterdir() if path != here and path.is_dir())
    others = [path.name for path in siblings if split_of(path.name)]
    if split_of(here.name) and others:
        note(
            f"{root} is next to {', '.join(sorted(others))}, which look like other splits of the same data. "
            f"Give {here.parent} to use all of them with these splits."
        )


def _refuse_mixture(where: str, folders: list[Folder], special: list[Folder]) -> None:
    others = [folder.name for folder in folders if not _special(folder)]
    if others:
        raise DataError(
            f"{where} holds the split folder '{special[0].name}' and also '{others[0]}', which is not a split, so "
            "either could be a class. Keep only split folders (train, validation, test) and 'unlabelled' there, or "
            "only class folders."
        )


def _refuse_twice(where: str, folders: list[Folder]) -> None:
    seen: dict[str, str] = {}
    for folder in folders:
        split = split_of(folder.name)
        if split in seen:
            raise DataError(
                f"{where}: '{seen[split]}' and '{folder.name}' both mean the {split} split. Merge or rename one."
            )
        if split:
            seen[split] = folder.name


def _refuse_wrong_level(where: str, folders: list[Folder]) -> None:
    """Raise `DataError` for class folders that are data sets themselves: the path is one level too high."""
    for folder in folders:
        splits = [inner.name for inner in folder.folders if _special(inner)]
        if splits or (len(folders) == 1 and len(folder.folders) > 1 and not folder.images):
            content = f"split folders ({', '.join(splits)})" if splits else "class folders"
            raise DataError(
                f"{where} is one level too high: its folder '{folder.name}' holds {content}, so it is a data set and "
                f"not a class. Give {where}/{folder.name} instead."
            )

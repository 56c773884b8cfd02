"""Folders of images: one folder per class, with or without split folders, with or without unlabelled images.

Only the names of folders say what an image is. The name of a file never does: "train.png" may be a railway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from potstill.data.formats.files import Folder, scan
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Files
from potstill.errors import DataError
from potstill.progress import note

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "validation"
)
_LABELLED, _UNLABELLED = ("labelled", "labeled"), ("unlabelled", "unlabeled")


def list_folder(root: Path) -> Listing:
    """Return what a folder on disk holds; raise `DataError` where its shape cannot be understood."""
    top, left = scan(root)
    _tell_of_siblings(root)
    entries = list(entries_of(str(root), top))
    return Listing(str(root), entries, Files(root, [entry.name for entry in entries]), class_names(top), left)


def split_of(name: str) -> str | None:
    """Return the split that a folder's name means, None where it means none."""
    return SPLIT_NAMES.get(name.lower())


def entries_of(where: str, top: Folder) -> Iterator[Entry]:
    """Yield the images of a tree of folders by what the names of the folders say; `where` is for messages."""
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
            note(f"{here} has no class folders: its {len(folder.images)} images are taken as unlabelled.")
            yield from (Entry(f"{folder.name}/{name}", None, split) for name in folder.images)
        yield from _of_classes(folder.folders, f"{folder.name}/", split)


def _of_labelled(where: str, folder: Folder) -> Iterator[Entry]:
    """Yield what lies in `labelled/`: class folders, or split folders of them."""
    for entry in entries_of(f"{where}/{folder.name}", folder):
        yield Entry(f"{folder.name}/{entry.name}", entry.label, entry.split)


def class_names(top: Folder) -> list[str]:
    """Return every class folder's name, of empty ones too."""
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
            f"{where}: ignored {len(images)} image(s) that lie beside the class folders, such as {images[0]}. "
            "Put them into a folder named 'unlabelled' to use them without labels."
        )


def _tell_of_siblings(root: Path) -> None:
    here = root.absolute()
    beside = (path for path in here.parent.iterdir() if path != here and path.is_dir())
    others = [path.name for path in beside if split_of(path.name)]
    if split_of(here.name) and others:
        note(
            f"{root} lies beside {', '.join(sorted(others))}, which looks like the other splits of the same data. "
            f"Give {here.parent} to use all of them as they are split there."
        )


def _refuse_mixture(where: str, folders: list[Folder], special: list[Folder]) -> None:
    others = [folder.name for folder in folders if not _special(folder)]
    if others:
        raise DataError(
            f"{where} holds the split folder '{special[0].name}' beside '{others[0]}', which is none, so either could "
            "be a class. Keep only split folders (train, validation, test) and 'unlabelled' there, or only class "
            "folders."
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
    """Refuse folders taken for classes that are data sets themselves: the path is one level too high."""
    for folder in folders:
        splits = [inner.name for inner in folder.folders if _special(inner)]
        if splits or (len(folders) == 1 and len(folder.folders) > 1 and not folder.images):
            held = f"split folders ({', '.join(splits)})" if splits else "class folders"
            raise DataError(
                f"{where} is one level too high: the folder '{folder.name}' in it holds {held}, so it is no class but "
                f"a data set. Give {where}/{folder.name} instead."
            )

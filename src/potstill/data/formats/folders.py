"""Folders of images: one folder per class, with or without split folders, with or without unlabelled images.

Only the names of folders say what an image is. The name of a file never does: "train.png" may be a railway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from potstill.data.formats.assemble import Entry, manifest_of_files
from potstill.data.formats.files import Folder, scan
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.progress import note

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "validation"
)
_LABELLED, _UNLABELLED = ("labelled", "labeled"), ("unlabelled", "unlabeled")


def read_folder(root: Path, *, group: str | None, allow_empty: bool) -> Manifest:
    """Return the manifest of a folder of images; raise `DataError` where its shape cannot be understood."""
    top = scan(root)
    _tell_of_siblings(root)
    return manifest_of_files(
        root, list(_entries(root, top)), group=group, allow_empty=allow_empty, named=_class_names(top)
    )


def _tell_of_siblings(root: Path) -> None:
    others = [
        p.name for p in root.absolute().parent.iterdir() if p.is_dir() and p != root.absolute() and split_of(p.name)
    ]
    if split_of(root.absolute().name) and others:
        note(
            f"{root} lies beside {', '.join(sorted(others))}, which looks like the other splits of the same data. "
            f"Give {root.parent} to use all of them as they are split there."
        )


def split_of(name: str) -> str | None:
    """Return the split that a folder's name means, None where it means none."""
    return SPLIT_NAMES.get(name.lower())


def _special(name: str) -> bool:
    return split_of(name) is not None or name.lower() in _LABELLED


def _entries(root: Path, top: Folder) -> Iterator[Entry]:
    for folder in top.folders:
        if folder.name.lower() in _UNLABELLED:
            yield from (Entry(f"{folder.name}/{name}") for name in folder)
    rest = [folder for folder in top.folders if folder.name.lower() not in _UNLABELLED]
    special = [folder for folder in rest if _special(folder.name)]
    if not rest:
        yield from (Entry(name) for name in top.images)
    elif not special:
        _refuse_wrong_level(root, rest)
        _beside(root, top.images)
        yield from _of_classes(rest, "", "train")
    else:
        _refuse_mixture(root, rest, special)
        _beside(root, top.images)
        yield from _of_splits(root, special)


def _of_classes(folders: list[Folder], prefix: str, split: str) -> Iterator[Entry]:
    for folder in folders:
        yield from (Entry(f"{prefix}{folder.name}/{name}", folder.name, split) for name in folder)


def _of_splits(root: Path, folders: list[Folder]) -> Iterator[Entry]:
    _refuse_twice(root, folders)
    for folder in folders:
        if folder.name.lower() in _LABELLED:
            yield from _of_labelled(root, folder)
        elif folder.folders:
            _refuse_wrong_level(root / folder.name, folder.folders)
            _beside(root / folder.name, folder.images)
            yield from _of_classes(folder.folders, f"{folder.name}/", split_of(folder.name) or "train")
        else:
            if folder.images:
                note(f"{root / folder.name} has no class folders: its {len(folder.images)} images are unlabelled.")
            yield from (Entry(f"{folder.name}/{n}", None, split_of(folder.name) or "train") for n in folder.images)


def _of_labelled(root: Path, folder: Folder) -> Iterator[Entry]:
    """Yield what lies in `labelled/`: class folders, or split folders of them."""
    inside = root / folder.name
    splits = [inner for inner in folder.folders if split_of(inner.name)]
    if not splits:
        _beside(inside, folder.images)
        yield from _of_classes(folder.folders, f"{folder.name}/", "train")
        return
    _refuse_mixture(inside, folder.folders, splits)
    for entry in _of_splits(inside, splits):
        yield Entry(f"{folder.name}/{entry.name}", entry.label, entry.split)


def _class_names(top: Folder) -> list[str]:
    """Return every class folder's name, of empty ones too."""
    names: dict[str, None] = {}
    rest = [folder for folder in top.folders if folder.name.lower() not in _UNLABELLED]
    for folder in rest:
        if not _special(folder.name):
            names[folder.name] = None
        else:
            names |= dict.fromkeys(_class_names(folder))
    return list(names)


def _beside(where: Path, images: list[str]) -> None:
    if images:
        note(
            f"{where}: ignored {len(images)} image(s) that lie beside the class folders, such as {images[0]}. "
            "Put them into a folder named 'unlabelled' to use them without labels."
        )


def _refuse_mixture(root: Path, folders: list[Folder], special: list[Folder]) -> None:
    others = [folder for folder in folders if folder not in special]
    if others:
        raise DataError(
            f"{root} holds the split folder '{special[0].name}' beside '{others[0].name}', which is none, so either "
            "could be a class. Keep only split folders (train, validation, test) and 'unlabelled' there, or only "
            "class folders."
        )


def _refuse_twice(root: Path, folders: list[Folder]) -> None:
    seen: dict[str, str] = {}
    for folder in folders:
        split = split_of(folder.name)
        if split in seen:
            raise DataError(
                f"{root}: '{seen[split]}' and '{folder.name}' both mean the {split} split. Merge or rename one."
            )
        if split:
            seen[split] = folder.name


def _refuse_wrong_level(root: Path, folders: list[Folder]) -> None:
    """Refuse folders taken for classes that are data sets themselves: the path is one level too high."""
    for folder in folders:
        splits = [inner.name for inner in folder.folders if _special(inner.name)]
        if splits or (len(folders) == 1 and len(folder.folders) > 1 and not folder.images):
            held = f"split folders ({', '.join(splits)})" if splits else "class folders"
            raise DataError(
                f"{root} is one level too high: the folder '{folder.name}' in it holds {held}, so it is no class but "
                f"a data set. Give {root / folder.name} instead."
            )

"""Tar archives of class folders and WebDataset shards, read in place without unpacking.

A compressed archive has no random access, so it is decompressed once into the cache folder.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from potstill import artifacts, bounded
from potstill.data.cache import Remembered, cache_folder, make_room, mark_used
from potstill.data.formats.files import Folder, is_image_name, natural, tree_of
from potstill.data.formats.folders import class_names, entries_of, split_of
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Members
from potstill.errors import DataError
from potstill.progress import note

_NAME = re.compile(r".*\.(tar(\.(gz|bz2|xz))?|tgz|tbz2|txz)", re.IGNORECASE)
Member = tuple[str, int, int]  # name, first byte, size


def is_archive(path: Path) -> bool:
    """Whether a file is a tar archive, by its name."""
    return _NAME.fullmatch(path.name) is not None


def shards_in(folder: Path) -> list[tuple[Path, str]]:
    """Return the archives of a folder, or of the split folders in it, each with the split it belongs to."""
    inner = [path for path in folder.iterdir() if path.is_dir() and split_of(path.name)]
    files = [(path, split_of(within.name) or "train") for within in inner for path in within.iterdir()]
    files += [(path, split_of_shard(path.name)) for path in folder.iterdir()]
    return sorted(((p, s) for p, s in files if p.is_file() and is_archive(p)), key=lambda shard: natural(str(shard[0])))


def split_of_shard(name: str) -> str:
    """Return the split in a shard's name, as in imagenet-train-000001.tar; "train" if there is none."""
    return next((split for word in re.split(r"[-_.]", name) if (split := split_of(word))), "train")


def list_archive(file: Path) -> Listing:
    """Return the listing of one archive: of class folders, or of WebDataset samples."""
    plain = _uncompressed(file)
    members = _members(plain, file)
    if _is_webdataset(members):
        return list_shards(file, [(file, "train")])
    top, left = tree_of(file.name, (name for name, _, _ in members))
    prefix, top = _descend(top)
    entries = list(entries_of(str(file), top))
    place = {name: (plain, start, size) for name, start, size in members}
    places = [place[prefix + entry.name] for entry in entries]
    source = Members(file, [entry.name for entry in entries], places, plain.stat().st_mtime_ns)
    return Listing(str(file), entries, source, class_names(top), left)


def _descend(top: Folder) -> tuple[str, Folder]:
    """Return (prefix, folder) of the folder with the classes or splits, skipping single enclosing folders."""
    prefix = ""
    while len(top.folders) == 1 and not top.images and top.folders[0].folders and not split_of(top.folders[0].name):
        top = top.folders[0]
        prefix += f"{top.name}/"
    return prefix, top


def _uncompressed(file: Path) -> Path:
    if not bounded.is_compressed(file):
        return file
    plain = cache_folder() / "archives" / f"{_content_key(file)}.tar"
    if not plain.is_file():
        note(f"Decompressing {file} once, to {plain}, which may be deleted at any time.")
        with artifacts.atomic(plain) as temporary, temporary.open("wb") as out:
            bounded.unpack(file, out, folder=plain.parent)
        make_room(plain)
    mark_used(plain)
    return plain


def _content_key(file: Path) -> str:
    """Return a key of the content of a file, which is read again only if its size or time changed."""
    remembered, stat = Remembered("keys", 1), file.stat()
    place, state = (str(file.resolve().parent), file.name), (stat.st_size, stat.st_mtime_ns)
    key = remembered.get(place, state)
    if not isinstance(key, str):
        key = artifacts.sha256(file)[:24]
        remembered.put(place, state, key)
        remembered.save()
    return key


def _damaged(file: str | Path, error: Exception) -> DataError:
    return DataError(f"{file} is damaged or truncated: {error}. Download or copy it again.")


def _members(plain: Path, file: str | Path) -> list[Member]:
    try:
        with tarfile.open(plain, "r:") as archive:
            members = [(_clean(member.name), member.offset_data, member.size) for member in archive if _plain(member)]
            end = archive.offset  # position of the next header: an empty one, or the end of the file
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(file, error) from error
    with plain.open("rb") as handle:
        handle.seek(end)
        after = handle.read(tarfile.BLOCKSIZE)
    if plain.stat().st_size < end or after.strip(b"\0") or len(after) not in (0, tarfile.BLOCKSIZE):
        raise _damaged(file, EOFError("the last file in it is incomplete"))
    return members


def _plain(member: tarfile.TarInfo) -> bool:
    """Whether a member's bytes lie in the archive as they are."""
    return member.isreg() and not member.issparse()


def _clean(name: str) -> str:
    return name.removeprefix("./")


def _key(name: str) -> str:
    """Return the key shared by the files of one WebDataset sample: the path up to the first dot of the file name."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _is_webdataset(members: Sequence[Member]) -> bool:
    images = {_key(name) for name, _, _ in members if is_image_name(name)}
    return any(_key(name) in images for name, _, _ in members if name.endswith((".cls", ".json")))


def list_shards(root: Path, shards: Iterable[tuple[Path, str]]) -> Listing:
    """Return the listing of WebDataset shards: samples of an image and a .cls or .json with its label."""
    entries: list[Entry] = []
    places: list[tuple[Path, int, int]] = []
    changed = 0
    for file, split in shards:
        plain = _uncompressed(file)
        changed = max(changed, plain.stat().st_mtime_ns)
        for name, label, start, size in samples_of(plain, str(file)):
            entries.append(Entry(f"{file.name}/{name}" if file != root else name, label, split))
            places.append((plain, start, size))
    return Listing(str(root), entries, Members(root, [entry.name for entry in entries], places, changed))


def samples_of(plain: Path, file: str) -> Iterator[tuple[str, str | None, int, int]]:
    """Yield (name, label, first byte, size) of every image in a shard. file: its name in messages."""
    members = _members(plain, file)
    labels: dict[str, str] = {}
    with plain.open("rb") as handle:
        for name, start, size in members:
            if name.endswith((".cls", ".json")):
                handle.seek(start)
                labels |= _label(_key(name), handle.read(size), name, file)
    for name, start, size in members:
        if is_image_name(name):
            yield name, labels.get(_key(name)), start, size


def _label(key: str, content: bytes, name: str, file: str) -> dict[str, str]:
    if name.endswith(".cls"):
        return {key: content.decode("utf-8", "replace").strip()}
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: {name} is not JSON: {error}.") from None
    fields = stored if isinstance(stored, dict) else {}
    label = next((fields[k] for k in ("label", "class", "cls") if k in fields), None)
    return {} if label is None else {key: str(label)}

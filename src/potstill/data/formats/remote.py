"""WebDataset shards behind a URL (s3://, gs://, https://, hf://, file://), read through fsspec one shard at a time.

A shard is copied to the cache when an image of it is read, and the copies are limited: the oldest are removed. So the
disk holds a few shards and the decoded pixels, whatever the size of the pool.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts
from potstill.data.cache import cache_folder
from potstill.data.decode import ImageError
from potstill.data.formats.archives import is_archive, samples_of, split_of_shard
from potstill.data.formats.files import natural
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Encoded
from potstill.errors import DataError
from potstill.offline import is_offline

LOCAL = ("file://", "memory://")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
KEPT = 4  # copies of shards on disk, the largest of which is some hundred megabytes
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub"}


def is_url(path: str) -> bool:
    """Whether a path names shards behind a URL."""
    return "://" in path


def list_remote(url: str) -> Listing:
    """Return the listing of the shards at a URL: one .tar, a range {000..099}, a pattern with *, or a folder of .tar.

    The split of a shard is that in its name. Every shard is read once. Raises `DataError` without network, package or
    shards.
    """
    entries: list[Entry] = []
    places: list[np.ndarray] = []
    shards = _shards(url)
    for number, shard in enumerate(shards):
        name = shard.url.rpartition("/")[2]
        with _copy(shard) as file:
            samples = list(samples_of(file, shard.url))
        split = split_of_shard(name)
        entries += [Entry(f"{name}/{inside}", label and sys.intern(label), split) for inside, label, *_ in samples]
        spans = [(number, start, size) for *_, start, size in samples]
        places.append(np.array(spans, np.int64).reshape(-1, 3))
    return Listing(url, entries, Remote(url, [entry.name for entry in entries], shards, np.concatenate(places)))


@dataclass(frozen=True)
class Shard:
    """A shard. state: its size and a number that changes with its content, as far as the server tells."""

    url: str
    state: tuple[int, int]


@dataclass(frozen=True)
class Remote(Encoded):
    """Members of shards behind a URL. places: int64 [N, 3], the number of the shard, first byte and size of each."""

    url: str
    names: Sequence[str]
    shards: Sequence[Shard]
    places: np.ndarray

    @property
    def origin(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The URL as a path, for messages."""
        return Path(self.url)

    def content(self, row: int) -> bytes:
        shard, start, size = self._place(row)
        try:
            with _copy(shard) as file, file.open("rb", buffering=0) as handle:
                handle.seek(start)
                content = handle.read(size)
        except DataError as error:
            raise ImageError("missing", str(error)) from error
        if len(content) < size:
            raise ImageError("damaged", f"{self.path(row)} is truncated: the shard ends within it.")
        return content

    def path(self, row: int) -> str:
        return f"{self.url}: {self.names[row]}"

    def place(self, row: int) -> tuple[str, str]:
        shard, start, _ = self._place(row)
        return shard.url, str(start)

    def state(self, row: int) -> tuple[int, int]:
        shard, _, size = self._place(row)
        return size, shard.state[1]

    def only(self, rows: Sequence[int]) -> Remote:
        chosen = self.places[np.asarray(rows, np.int64)]
        used, number = np.unique(chosen[:, 0], return_inverse=True)  # a process gets the shards that it reads
        places = np.column_stack([number, chosen[:, 1:]])
        return Remote(self.url, [self.names[row] for row in rows], [self.shards[one] for one in used], places)

    def _place(self, row: int) -> tuple[Shard, int, int]:
        number, start, size = self.places[row].tolist()
        return self.shards[number], start, size


def _shards(url: str) -> list[Shard]:
    """Return the shards of a URL in natural order."""
    if is_offline() and not url.startswith(LOCAL):
        raise DataError(f"{url} would be downloaded, which --offline forbids. Leave --offline out, or copy the shards.")
    fs, urls = _system(url), _expanded(url)
    with _told(url):
        if "*" in url:
            urls = [str(fs.unstrip_protocol(path)) for path in fs.glob(url)]
        elif len(urls) == 1 and not is_archive(Path(url)):
            urls = [str(fs.unstrip_protocol(path)) for path in fs.glob(f"{url.rstrip('/')}/*")]
        urls = sorted((one for one in urls if is_archive(Path(one)) and one.endswith(".tar")), key=natural)
        if not urls:
            raise DataError(f"There are no .tar shards at {url}. Give a folder of them, a pattern or a range of names.")
        return [Shard(one, _state(fs.info(one))) for one in urls]


def _expanded(url: str) -> list[str]:
    """Return the URLs of {000..099}, with as many digits."""
    match = RANGE.search(url)
    if match is None:
        return [url]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    return [f"{url[: match.start()]}{number:0{len(first)}}{url[match.end() :]}" for number in numbers]


def _state(info: dict[str, Any]) -> tuple[int, int]:
    """Return the size and a number of what else the server tells of the content."""
    told = [str(info.get(key)) for key in ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created")]
    digest = hashlib.sha256("\0".join(told).encode()).digest()
    return int(info.get("size") or 0), int.from_bytes(digest[:6], "big")


@functools.lru_cache(maxsize=8)
def _system(url: str) -> Any:
    """Return the file system of a URL."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(protocol)
        advice = f"Type: pip install {package}" if package else f"fsspec knows no {protocol}://."
        raise DataError(f"{url} cannot be read: {error}. {advice}") from None


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Raise what a server or its library raises as `DataError`."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # the libraries' errors have no common base class
        raise DataError(
            f"{url} cannot be read ({type(error).__name__}: {str(error)[:200]}). Check the address, the network and "
            "your credentials, and run the same command again: what was read is kept."
        ) from error


@contextlib.contextmanager
def _copy(shard: Shard) -> Iterator[Path]:
    """Yield a local copy of a shard, which no other process removes meanwhile."""
    folder = cache_folder() / "shards"
    file = folder / f"{hashlib.sha256(f'{shard.url}{shard.state}'.encode()).hexdigest()[:24]}.tar"
    folder.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # one process fetches
        if not file.is_file():
            _fetch(shard, file)
            _limit(folder, file)
        fcntl.flock(handle, fcntl.LOCK_SH)  # many read, and none removes
        yield file


def _fetch(shard: Shard, file: Path) -> None:
    with _told(shard.url), artifacts.atomic(file, by_all=True) as temporary:
        _system(shard.url).get_file(shard.url, str(temporary))
    if shard.state[0] and file.stat().st_size != shard.state[0]:
        file.unlink()
        raise DataError(f"{shard.url} changed while it was read. Run the same command again.")


def _limit(folder: Path, keep: Path) -> None:
    """Remove the oldest copies beyond `KEPT` that no process reads."""
    copies = sorted((path for path in folder.glob("*.tar") if path != keep), key=lambda path: path.stat().st_mtime_ns)
    for path in copies[: max(len(copies) + 1 - KEPT, 0)]:
        with path.with_suffix(".lock").open("w") as handle, contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)

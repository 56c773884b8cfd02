"""What one pass over the files finds out: digest, size, kind, likeness, and what is wrong with them.

The pass decodes every image once, in several processes, and remembers the answers by size and time of change in the
cache folder, so that reading the same images again costs a fraction of a second. `read_manifest` takes digests and
problems from it, the checks take the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from potstill.data import decode
from potstill.data.cache import Remembered
from potstill.data.workers import in_processes
from potstill.errors import DataError
from potstill.progress import task

_VERSION = 1
_CHUNK = 64
_SECONDS_PER_BYTE = 4e-8  # of a JPEG, to be read and decoded; only decides whether processes are started
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Facts:
    """sha256: hex, of the file's bytes ("" where unreadable). width, height: pixels, upright. kind: Pillow's format.
    traits: of "16-bit", "float", "turned", "alpha", "palette", "cmyk", "grey", "animated". likeness: 64-bit dHash.
    problem: a sentence where the image cannot be used."""

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    kind: str = ""
    traits: tuple[str, ...] = ()
    likeness: int = 0
    problem: str | None = None


def gather(root: Path, names: Sequence[str]) -> list[Facts]:
    """Return the facts about the files `root / name`, in the order of `names`; only new and changed ones are read."""
    remembered = Remembered(root, "facts", _VERSION * 1000 + decode.VERSION)
    stats = [_stat(root / name) for name in names]
    known = [stat and remembered.get(name, stat) for name, stat in zip(names, stats, strict=True)]
    missing = [row for row, value in enumerate(known) if value is None]
    if missing:
        _read(root, names, stats, missing, known, remembered)
        remembered.save()
    return [Facts(**{**value, "traits": tuple(value["traits"])}) for value in known]


def _read(
    root: Path,
    names: Sequence[str],
    stats: Sequence[os.stat_result | None],
    missing: Sequence[int],
    known: list[dict | None],
    remembered: Remembered,
) -> None:
    """Fill the gaps of `known` and remember what was found."""
    jobs = (([names[row] for row in missing[at : at + _CHUNK]], root) for at in range(0, len(missing), _CHUNK))
    size = sum(stat.st_size for stat in stats if stat is not None)
    with task("Reading the images", len(missing)) as shown:
        done = 0
        for found in in_processes(_facts_of, jobs, seconds=size * _SECONDS_PER_BYTE + len(missing) * 1e-4):
            for row, value in zip(missing[done:], found, strict=False):
                known[row] = value
                if stats[row] is not None:
                    remembered.put(names[row], stats[row], value)
            done += len(found)
            shown.advance(len(found))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _facts_of(names: Sequence[str], root: Path) -> list[dict]:
    return [asdict(facts_of_file(root / name, name=name)) for name in names]


def facts_of_file(path: Path, *, name: str) -> Facts:
    """Return the facts about one file; a problem is part of them, not an error."""
    try:
        return facts_of(decode.read_bytes(path, name=name), name=name)
    except DataError as error:
        return Facts(problem=str(error))


def facts_of(content: bytes, *, name: str) -> Facts:
    """Return the facts about the bytes of an image file."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        with decode.open_image(content, name=name) as image:
            kind, traits = image.format or "", _traits(image)
            pixels = decode.pixels_of(image, name=name)
    except DataError as error:
        return Facts(digest, len(content), problem=str(error))
    height, width = pixels.shape[:2]
    return Facts(digest, len(content), width, height, kind, traits, likeness(pixels))


def _traits(image: Image.Image) -> tuple[str, ...]:
    mode = image.mode
    found = {
        "16-bit": mode.startswith("I"),
        "float": mode == "F",
        "turned": _turned(image),
        "alpha": image.has_transparency_data,
        "palette": mode in ("P", "PA"),
        "cmyk": mode == "CMYK",
        "grey": mode in ("1", "L", "LA", "F") or mode.startswith("I"),
        "animated": getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "TIFF"),
    }
    return tuple(trait for trait, has in found.items() if has)


def _turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged EXIF; decode decides whether the image can be used
        return False


def likeness(pixels: np.ndarray) -> int:
    """Return a 64-bit difference hash of uint8 [H, W, C]: near-equal images differ in few bits.

    Each bit tells whether a cell of an 8 x 8 raster is darker than its right neighbour.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    cells = np.asarray(image.resize((9, 8), Image.Resampling.BOX, reducing_gap=2.0))
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")

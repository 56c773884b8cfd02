"""Facts about image files from one pass over them: digest, size, format, perceptual hash, faults.

The pass decodes every image once, in several processes, and caches the results by size and modification time, so that
reading the same images again takes a fraction of a second. `read_manifest` uses the digests and faults, the checks use
the rest.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np
from PIL import Image

from potstill.data import decode
from potstill.data.cache import Remembered
from potstill.data.formats.sources import Encoded
from potstill.data.thumbnails import as_image
from potstill.data.workers import in_processes
from potstill.progress import task

_VERSION = 8
_CHUNK = 64
_SECONDS_PER_BYTE, _SECONDS_PER_FILE = 4e-8, 1e-4  # for JPEGs; they only decide whether processes are started
_ORIENTATION, _MAKE, _MODEL, _DATE = 0x0112, 0x010F, 0x0110, 0x0132  # EXIF tags
_EXIF, _TAKEN = 0x8769, 0x9003
_SAVED_EVERY = 60.0  # seconds
_LOW = 64  # of 255: the brightest pixel of 14 bits in 16; of 12 bits it is 16
_LONGEST = 64  # characters of an EXIF text
_PATH = "\0"  # placeholder for the path in cached values, because a file can be reached by several paths


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one image.

    sha256: hex, of the file's bytes ("" if it could not be opened). bytes: its size. width, height: in pixels, after
    the EXIF orientation. kind: Pillow's name of the format. traits: any of "16-bit", "float", "rotated", "alpha",
    "palette", "cmyk", "grey", "animated", "blank", "low" (16-bit, of which the upper bits are unused). likeness: 64-bit
    difference hash. camera, taken: make and model, and the time "2026:11:21 13:00:00", as EXIF has them. fault,
    problem: of `decode.ImageError`, "" if the image can be used.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    kind: str = ""
    traits: tuple[str, ...] = ()
    likeness: int = 0
    camera: str = ""
    taken: str = ""
    fault: str = ""
    problem: str = ""


def gather(source: Encoded) -> list[Facts]:
    """Return the facts about all images of a source; only new and changed files are read."""
    remembered = Remembered("facts", _VERSION * 1000 + decode.VERSION)
    found: list[Facts | None] = [None] * len(source.names)
    rows_of: dict[str, list[int]] = {}
    for row in range(len(found)):
        rows_of.setdefault(source.place(row)[0], []).append(row)
    waiting: dict[str, int] = {}  # images to read, by folder
    for folder, rows in rows_of.items():
        for row in rows:
            if (state := source.state(row)) and (value := remembered.get(source.place(row), state)) is not None:
                found[row] = _facts(value, source.path(row))
        waiting[folder] = sum(found[row] is None for row in rows)
        remembered.forget({folder: waiting[folder]})
    missing = [row for row, facts in enumerate(found) if facts is None]
    size = sum(state[0] for row in missing if (state := source.state(row)))
    saved = time.monotonic()
    with task("Reading images", len(found), len(found) - len(missing)) as shown:
        seconds = size * _SECONDS_PER_BYTE + len(missing) * _SECONDS_PER_FILE
        for row, value in zip(missing, _read(source, missing, seconds), strict=True):
            place, found[row] = source.place(row), _facts(value, source.path(row))
            waiting[place[0]] -= 1
            if state := source.state(row):
                remembered.put(place, state, value)
            if time.monotonic() - saved > _SAVED_EVERY:
                remembered.save()  # so that reading a large pool is resumed
                remembered.forget(waiting)
                saved = time.monotonic()
            shown.advance()
    remembered.save()
    return cast("list[Facts]", found)


def _facts(value: dict, path: str) -> Facts:
    """Return the facts of a stored value; what many images share is stored once."""
    shared = {name: sys.intern(value[name]) for name in ("kind", "camera", "taken", "fault")}
    traits, problem = _together(tuple(value["traits"])), value["problem"].replace(_PATH, path)
    return Facts(**{**value, **shared, "traits": traits, "problem": problem})


@functools.lru_cache(maxsize=1000)
def _together(traits: tuple[str, ...]) -> tuple[str, ...]:
    return traits


def _read(source: Encoded, rows: Sequence[int], seconds: float) -> Iterator[dict]:
    jobs = ((source.only(rows[start : start + _CHUNK]),) for start in range(0, len(rows), _CHUNK))
    for facts in in_processes(_facts_of, jobs, seconds=seconds):
        yield from facts


def _facts_of(source: Encoded) -> list[dict]:
    return [asdict(facts_of_row(source, row)) for row in range(len(source.names))]


def facts_of_row(source: Encoded, row: int) -> Facts:
    """Return the facts about one image; a problem is recorded, not raised, with `_PATH` instead of the path."""
    try:
        content = source.content(row)
    except decode.ImageError as error:
        return Facts(fault=error.fault, problem=str(error).replace(source.path(row), _PATH))
    return facts_of(content, name=_PATH)


def facts_of(content: bytes, *, name: str) -> Facts:
    """Return the facts about the bytes of an image file."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        with decode.open_image(content, name=name) as image:
            kind, traits, shot = image.format or "", _traits(image), _shot(image)
            pixels = decode.pixels_of(image, name=name)
    except decode.ImageError as error:
        return Facts(digest, len(content), fault=error.fault, problem=str(error))
    if "16-bit" in traits and 0 < pixels.max() <= _LOW:
        traits = (*traits, "low")
    return replace(facts_of_pixels(pixels, digest, size=len(content), kind=kind, traits=traits), **shot)


def facts_of_pixels(
    pixels: np.ndarray, digest: str, *, size: int, kind: str = "array", traits: tuple[str, ...] = ()
) -> Facts:
    """Return the facts about decoded pixels, uint8 [H, W, C]."""
    height, width = pixels.shape[:2]
    image = as_image(pixels)
    extremes = np.reshape(image.getextrema(), (-1, 2))
    blank = ("blank",) if (extremes[:, 0] == extremes[:, 1]).all() else ()
    return Facts(digest, size, width, height, kind, traits + blank, likeness(image))


def _traits(image: Image.Image) -> tuple[str, ...]:
    try:
        return _traits_of(image)
    except Exception:  # a damaged header; decode decides whether the image can be used
        return ()


def _shot(image: Image.Image) -> dict[str, str]:
    """Return the camera and the time of a photo, "" where EXIF has none."""
    try:
        exif = image.getexif()
        texts = [exif.get(_MAKE), exif.get(_MODEL), exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_DATE)]
    except Exception:  # see _traits
        return {}
    make, model, taken = ("".join(str(text or "").split("\0"))[:_LONGEST].strip() for text in texts)
    return {"camera": f"{make} {model}".strip(), "taken": taken}


def _traits_of(image: Image.Image) -> tuple[str, ...]:
    mode = image.mode
    has = {
        "16-bit": mode.startswith("I"),
        "float": mode == "F",
        "rotated": image.getexif().get(_ORIENTATION, 1) in range(2, 9),
        "alpha": image.has_transparency_data,
        "palette": mode in ("P", "PA"),
        "cmyk": mode == "CMYK",
        "grey": mode in ("1", "L", "LA", "F") or mode.startswith("I"),
        "animated": image.format in ("GIF", "PNG", "WEBP", "AVIF") and getattr(image, "is_animated", False),
    }
    return tuple(trait for trait, value in has.items() if value)


def likeness(image: Image.Image) -> int:
    """Return a 64-bit difference hash of a grey or RGB image: near-duplicates differ in few bits.

    Each bit is 1 if a cell of an 8 x 8 grid is darker than its right neighbour.
    """
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX, reducing_gap=2.0))
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")

"""What one pass over the files finds out: digest, size, kind, likeness, and what is wrong with them.

The pass decodes every image once, in several processes, and remembers the answers by size and time of change in the
cache folder, so that reading the same images again costs a fraction of a second. `read_manifest` takes digests and
problems from it, the checks take the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from potstill.data import decode
from potstill.data.cache import Remembered
from potstill.data.formats.sources import Encoded
from potstill.data.workers import in_processes
from potstill.progress import task

_VERSION = 6
_CHUNK = 64
_SECONDS_PER_BYTE, _SECONDS_PER_FILE = 4e-8, 1e-4  # of JPEGs; they only decide whether processes are started
_ORIENTATION = 0x0112
_PATH = "\0"  # stands for the path in what is remembered, because the same file can be reached by several


@dataclass(frozen=True)
class Facts:
    """What is known of one image.

    sha256: hex, of the file's bytes ("" where it could not be opened). bytes: its size. width, height: pixels,
    upright. kind: Pillow's name of the format. traits: of "16-bit", "float", "turned", "alpha", "palette", "cmyk",
    "grey", "animated", "blank". likeness: 64-bit difference hash. fault, problem: of `decode.ImageError`, "" where
    the image can be used.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    kind: str = ""
    traits: tuple[str, ...] = ()
    likeness: int = 0
    fault: str = ""
    problem: str = ""


def gather(source: Encoded) -> list[Facts]:
    """Return the facts about all images of a source; only new and changed files are read."""
    remembered = Remembered("facts", _VERSION * 1000 + decode.VERSION)
    places = [source.place(row) for row in range(len(source.names))]
    states = [source.state(row) for row in range(len(source.names))]
    known = [state and remembered.get(place, state) for place, state in zip(places, states, strict=True)]
    missing = [row for row, value in enumerate(known) if value is None]
    size = sum(states[row][0] for row in missing if states[row])
    with task("Reading the images", len(known), len(known) - len(missing)) as shown:
        seconds = size * _SECONDS_PER_BYTE + len(missing) * _SECONDS_PER_FILE
        for row, value in zip(missing, _read(source, missing, seconds), strict=True):
            known[row] = value
            if states[row]:
                remembered.put(places[row], states[row], value)
            shown.advance()
    remembered.save()
    return [_facts(value, source.path(row)) for row, value in enumerate(known)]


def _facts(value: dict, path: str) -> Facts:
    return Facts(**{**value, "traits": tuple(value["traits"]), "problem": value["problem"].replace(_PATH, path)})


def _read(source: Encoded, rows: Sequence[int], seconds: float) -> Iterator[dict]:
    jobs = ((source.only(rows[start : start + _CHUNK]),) for start in range(0, len(rows), _CHUNK))
    for found in in_processes(_facts_of, jobs, seconds=seconds):
        yield from found


def _facts_of(source: Encoded) -> list[dict]:
    return [asdict(facts_of_row(source, row)) for row in range(len(source.names))]


def facts_of_row(source: Encoded, row: int) -> Facts:
    """Return the facts about one image; a problem is part of them, not an error, and has no path in it yet."""
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
            kind, traits = image.format or "", _traits(image)
            pixels = decode.pixels_of(image, name=name)
    except decode.ImageError as error:
        return Facts(digest, len(content), fault=error.fault, problem=str(error))
    return facts_of_pixels(pixels, digest, size=len(content), kind=kind, traits=traits)


def facts_of_pixels(
    pixels: np.ndarray, digest: str, *, size: int, kind: str = "array", traits: tuple[str, ...] = ()
) -> Facts:
    """Return the facts about decoded pixels, uint8 [H, W, C]."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    extremes = np.reshape(image.getextrema(), (-1, 2))
    blank = ("blank",) if (extremes[:, 0] == extremes[:, 1]).all() else ()
    return Facts(digest, size, width, height, kind, traits + blank, likeness(image))


def _traits(image: Image.Image) -> tuple[str, ...]:
    try:
        return _traits_of(image)
    except Exception:  # a damaged header; decode decides whether the image can be used
        return ()


def _traits_of(image: Image.Image) -> tuple[str, ...]:
    mode = image.mode
    found = {
        "16-bit": mode.startswith("I"),
        "float": mode == "F",
        "turned": image.getexif().get(_ORIENTATION, 1) in range(2, 9),
        "alpha": image.has_transparency_data,
        "palette": mode in ("P", "PA"),
        "cmyk": mode == "CMYK",
        "grey": mode in ("1", "L", "LA", "F") or mode.startswith("I"),
        "animated": image.format in ("GIF", "PNG", "WEBP", "AVIF") and image.is_animated,
    }
    return tuple(trait for trait, has in found.items() if has)


def likeness(image: Image.Image) -> int:
    """Return a 64-bit difference hash of a grey or RGB image: near-equal images differ in few bits.

    Each bit tells whether a cell of an 8 x 8 raster is darker than its right neighbour.
    """
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX, reducing_gap=2.0))
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")

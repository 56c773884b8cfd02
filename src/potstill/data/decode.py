"""Decoding of image files to pixels, shared by training, evaluation and prediction.

Image readers differ silently: one clips 16-bit images to white, another ignores the EXIF orientation, a third keeps
the colours hidden under transparency. A model that is trained with one reader and used with another loses accuracy
without an error, so all files are read by `decode`.
"""

from __future__ import annotations

import io
import re
import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from potstill.errors import DataError

VERSION = 2  # part of every cache key: raise it when the pixels of any file change
MAX_PIXELS = 89_478_485  # Pillow's own limit for decompression bombs: 256 MiB at three bytes per pixel
MAX_BYTES = 2**30
_GREY = ("1", "L", "LA", "La")
_DRAWINGS = ("EPS", "WMF", "EMF")  # decoding them would run an interpreter
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_TO_PNG = "Convert it to PNG."
_PNG, _TEXTS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt")
_STARTS = {_PNG: "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class ImageError(DataError):
    """An image file that cannot be used. `fault` is one of "missing", "empty", "foreign", "plug-in", "bomb",
    "drawing", "damaged", "range"."""

    def __init__(self, fault: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault

    def __reduce__(self) -> tuple:
        return type(self), (self.fault, str(self))


def decode(source: str | Path | bytes, *, name: str) -> np.ndarray:
    """Return the pixels of an image file (its path or its bytes), uint8 [H, W, C] with C = 1 (grey) or 3 (RGB).

    The EXIF orientation is applied, 16-bit values are scaled by their bit depth and float values in 0..1 by 255,
    transparency is composited on white, palette and CMYK images are converted to RGB, and of an animation the first
    frame is used. `name` is used in error messages. Raises `DataError` if the file is missing, empty, truncated,
    larger than `MAX_PIXELS` or not an image.
    """
    content = source if isinstance(source, bytes) else read_bytes(source, name=name)
    with open_image(content, name=name) as image:
        return pixels_of(image, name=name)


def pixels_of(image: Image.Image, *, name: str) -> np.ndarray:
    """Return the pixels of an image from `open_image`, as `decode` does."""
    try:
        return _pixels(image, name)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("bomb", f"{name} does not fit into memory when decoded.") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors on damaged files
        raise ImageError("damaged", f"{name} is damaged or truncated: {error}.") from error


def read_bytes(path: str | Path, *, name: str) -> bytes:
    """Return the content of a file; raise `DataError` if it cannot be read."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("missing", f"{name} is not a file but a folder, pipe, device or socket.")
        if status.st_size > MAX_BYTES:
            raise ImageError("bomb", f"{name} has {status.st_size // 1_000_000:,} MB, too many for one image.")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", f"{name} does not exist.") from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name may hold what no path can
        raise ImageError("missing", f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def open_image(content: bytes, *, name: str) -> Image.Image:
    """Return the image with only its header read; raise `DataError` if it is not an image or too large to decode."""
    try:
        image = _verified(content)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("bomb", _bomb(name, "")) from error
    except Exception as error:  # see decode
        fault, what = _what_it_is(content, error)
        raise ImageError(fault, f"{name} {what}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("bomb", _bomb(name, f" ({image.width} x {image.height})"))
    if image.format in _DRAWINGS:
        raise ImageError("drawing", f"{name} is a drawing ({image.format}), not a raster image. {_TO_PNG}")
    return image


def _verified(content: bytes) -> Image.Image:
    """Return the image after checking the checksums of a PNG, which decoding ignores; damage in its texts is none."""
    if not content.startswith(_PNG):
        return _opened(content)
    content = _without_texts(content, after=b"IDAT")  # some hold the EXIF data, but none after the pixels
    try:
        _opened(content).verify()
        return _opened(content)
    except Exception:
        plain = _without_texts(content)
        if plain == content:
            raise
    _opened(plain).verify()
    return _opened(plain)


def _without_texts(content: bytes, after: bytes = b"IHDR") -> bytes:
    """Return a PNG without the text chunks after its first chunk of a kind: they may be damaged or huge."""
    parts, place, passed = [_PNG], len(_PNG), False
    while place + 12 <= len(content):
        kind, end = content[place + 4 : place + 8], place + 12 + int.from_bytes(content[place : place + 4], "big")
        if not (passed and kind in _TEXTS):
            parts.append(content[place:end])
        passed, place = passed or kind == after, end
    return b"".join(parts) + content[place:]


def _opened(content: bytes) -> Image.Image:
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        # an optional plug-in; _what_it_is reports that it is missing
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(content))


def _bomb(name: str, size: str) -> str:
    return (
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels{size}, which can exhaust the memory when "
        "decoded. Downscale it, or leave it out."
    )


def _what_it_is(content: bytes, error: Exception) -> tuple[str, str]:
    """Return the fault of a file that no reader accepts, and the predicate of a sentence about it."""
    start = content[:512].lstrip().lower()
    if not content:
        return "empty", "is empty (0 bytes)."
    if isinstance(error, ImportError):
        return "plug-in", "is a HEIC photo, which needs a plug-in. Type: pip install pillow-heif"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "plug-in", "is an AVIF image, which this Pillow cannot read. Type: pip install --upgrade pillow"
    if start.startswith((b"<!doctype", b"<html")):
        return "foreign", "is a web page with an image extension."
    if start.startswith((b"<svg", b"<?xml", b"%pdf")):
        return "drawing", f"is a document or drawing, not a raster image. {_TO_PNG}"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", content[:64]):
        return "foreign", f"is text, not an image: it begins with {content[:32].decode()!r}."
    kind = next((kind for begin, kind in _STARTS.items() if content.startswith(begin)), "")
    if kind:
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f": {error}"
        return "damaged", f"is damaged or truncated (it begins like a {kind}){reason}."
    if isinstance(error, Image.UnidentifiedImageError):
        return "foreign", f"is not an image that can be read: it begins with the bytes {content[:8].hex(' ')}."
    return "damaged", f"is damaged or truncated: {error}."


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        deep = ImageOps.exif_transpose(image)
        return _scaled(np.asarray(deep), _depth(image), name)[:, :, None]
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    grey = image.mode in _GREY
    if image.has_transparency_data:
        image = _on_white(image)
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[:, :, None] if grey else pixels


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _depth(image: Image.Image) -> float:
    """Return the value that means white."""
    if image.mode == "F":
        return 1.0
    if image.format != "TIFF":
        return 65535.0  # PNG; and PGM, whose values Pillow has already scaled to 16 bits
    assert isinstance(image, TiffImageFile), type(image)
    bits = int(image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
    signed = image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == 2
    return float(2 ** (bits - signed) - 1)


def _scaled(value: np.ndarray, white: float, name: str) -> np.ndarray:
    """Return [H, W] values in 0..white as uint8."""
    low, high = float(value.min()), float(value.max())
    if not (low >= 0 and high <= white):  # also true of NaN
        raise ImageError(
            "range",
            f"{name} holds values from {low:g} to {high:g}; values of this format must be in 0 to {white:g}. "
            "Scale the values and save the image again.",
        )
    return np.rint(value.astype(np.float64) * (255.0 / white)).astype(np.uint8)

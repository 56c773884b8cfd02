"""Pictures as collections gather them: what is read, what is said of the others."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from potstill.data.checks import examine
from potstill.data.decode import ImageError, decode
from potstill.data.formats import read_manifest
from tests.data import films
from tests.data.pictures import picture

BEFORE, AFTER = 33, -12  # in a PNG: the end of the header, the beginning of the end


def chunk(kind: bytes, body: bytes, crc: bytes | None = None) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + (crc or struct.pack(">I", zlib.crc32(kind + body)))


TEXTS = {
    "wrong checksum": chunk(b"tEXt", b"a\0bcd", b"\0\0\0\0"),
    "three megabytes": chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * (3 << 20))),
    "not compressed": chunk(b"zTXt", b"note\0\0 nothing"),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", [BEFORE, AFTER])
def test_a_comment_cannot_spoil_a_png(text, place):
    image = picture("x", (24, 24))
    memory = io.BytesIO()
    image.save(memory, "PNG")
    content = memory.getvalue()
    commented = content[:place] + TEXTS[text] + content[place:]
    assert np.array_equal(decode(commented, name="x.png"), decode(content, name="x.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
def test_a_damaged_image_is_not_called_another_kind_of_file(kind):
    memory = io.BytesIO()
    picture("x", (24, 24)).save(memory, kind)
    with pytest.raises(ImageError, match=f"damaged or truncated .it begins like a {kind}") as caught:
        decode(memory.getvalue()[:14], name="x")
    assert caught.value.fault == "damaged"


@pytest.mark.parametrize(("bits", "low"), [(10, True), (12, True), (14, True), (16, False)])
def test_bits_that_are_not_used_are_a_warning(tmp_path, bits, low, notes):
    for k in ("a", "b"):
        (tmp_path / k).mkdir()
        for i in range(2):
            ramp = np.linspace(0, 2**bits - 1, 64)[None].repeat(40 + i, 0).astype(np.uint16)
            Image.fromarray(ramp).save(tmp_path / k / f"{i}.{'png' if i else 'tif'}")
    found = [(one.severity, one.count) for one in examine(tmp_path).findings if one.code == "low"]
    assert found == ([("warning", 4)] if low else [])
    read_manifest(tmp_path)
    assert any("less than a quarter of their 16 bits" in note for note in notes) == low


def test_near_duplicates_are_counted_once_each(tmp_path):
    films.write(tmp_path, {f"{k}/{k}.png": (k, 0) for k in range(2)})
    for quality in (95, 90, 80, 70):
        films.frame(0, 0).save(tmp_path / "0" / f"{quality}.jpg", quality=quality)
    (finding,) = [one for one in examine(tmp_path).findings if one.code == "near-copies-within"]
    assert finding.count == 5 and finding.text.startswith("5 images have") and len(finding.rows) == 10

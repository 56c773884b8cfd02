"""What `decode` promises for each kind of file; most rows of the table of silent failures in other tools."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from potstill.data.decode import MAX_PIXELS, decode
from potstill.errors import DataError
from tests.data.pictures import bomb, encoded


def gradient(height: int = 6, width: int = 10) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_rgb_and_grey_keep_their_channels():
    rgb = gradient()
    assert np.array_equal(decode(encoded(Image.fromarray(rgb), "PNG"), name="a.png"), rgb)
    grey = decode(encoded(Image.fromarray(rgb[:, :, 0]), "PNG"), name="a.png")
    assert grey.shape == (6, 10, 1) and np.array_equal(grey[:, :, 0], rgb[:, :, 0])


def test_sixteen_bit_grey_is_scaled_by_its_depth_not_white():
    values = np.linspace(0, 65535, 60).astype(np.uint16).reshape(6, 10)
    for kind in ("PNG", "TIFF", "PPM"):
        pixels = decode(encoded(Image.fromarray(values), kind), name="deep")
        assert np.array_equal(pixels[:, :, 0], np.rint(values / 257).astype(np.uint8)), kind


def test_thirty_two_bit_integers_are_scaled_by_their_depth():
    values = np.array([[0, 2**30, 2**31 - 1]], dtype=np.int32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), name="deep")[0, :, 0].tolist() == [0, 128, 255]


def test_float_in_0_to_1_is_scaled_and_other_floats_are_refused():
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    pixels = decode(encoded(Image.fromarray(values), "TIFF"), name="x.tif")
    assert np.array_equal(pixels[:, :, 0], np.rint(values * 255.0).astype(np.uint8))
    for wrong in (values * 300, values - 1, values * np.nan):
        with pytest.raises(DataError, match=r"x\.tif holds values from .* must be in 0 to 1"):
            decode(encoded(Image.fromarray(wrong.astype(np.float32)), "TIFF"), name="x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = gradient()
    undo = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    undo |= {5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1)}
    undo |= {8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    content = encoded(Image.fromarray(stored), kind, exif=exif)
    assert np.array_equal(decode(content, name="photo"), upright)


def test_sixteen_bit_with_orientation_is_turned_too():
    values = np.arange(60, dtype=np.uint16).reshape(6, 10) * 257
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(Image.fromarray(values[::-1, ::-1].copy()), "PNG", exif=exif)
    assert np.array_equal(decode(content, name="a")[:, :, 0], values // 257)


def test_transparency_is_laid_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, (0, 255, 51)
    assert decode(encoded(Image.fromarray(rgba), "PNG"), name="a")[0].tolist() == [
        [255, 255, 255],
        [200, 0, 0],
        [244, 204, 204],
    ]
    grey = np.array([[[7, 0], [7, 255]]], np.uint8)
    assert decode(encoded(Image.fromarray(grey, "LA"), "PNG"), name="a")[0].tolist() == [[255], [7]]


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for transparency in (1, b"\xff\x00"):
        content = encoded(image, "PNG", transparency=transparency)
        assert decode(content, name="a")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_palette_and_one_bit():
    red = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert decode(encoded(red, "TIFF"), name="a")[0, 0].tolist() == [255, 0, 0]
    assert decode(encoded(Image.new("1", (2, 2), 1), "PNG"), name="a")[0, 0].tolist() == [255]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode(content, name="a").shape == (4, 4, 3)
        assert decode(content, name="a")[0, 0].tolist() == [255, 0, 0]


def test_wrong_ending_is_read_by_content(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    assert np.array_equal(decode(path, name="a.jpg"), gradient())


@pytest.mark.parametrize("side", [9_460, 10_955, 20_000])
def test_bombs_are_refused_from_the_header_alone(side):
    assert side * side > MAX_PIXELS
    with warnings.catch_warnings(), pytest.raises(DataError, match="huge.png has more than 89 million pixels"):
        warnings.simplefilter("ignore")
        decode(bomb(side, side), name="huge.png")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "a.jpg is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>404", "a.jpg is a web page"),
        (b'<?xml version="1.0"?><svg/>', "a.jpg is a document or drawing"),
        (b"Not found", "a.jpg is text, not an image: it begins with 'Not found'"),
        (b"\x00\x01\x02\xff" * 9, "begins with the bytes 00 01 02 ff 00 01 02 ff"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40), "pip install pillow-heif"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "is a drawing (EPS)"),
    ],
)
def test_what_is_no_image_is_named(content, sentence):
    with pytest.raises(DataError) as raised:
        decode(content, name="a.jpg")
    assert sentence in str(raised.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_name_the_path(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match="dir/a.jpg is damaged or truncated|dir/a.jpg is not an image"):
        decode(content[: len(content) // 2], name="dir/a.jpg")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="a.png does not exist"):
        decode(tmp_path / "a.png", name="a.png")

"""What other tools do silently wrong, row by row, with files that the test makes; potstill does it right or says so.

Every image goes the three roads that there are: listed in a manifest, decoded for training and evaluation, and decoded
alone for prediction. They must agree to the last bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from potstill.data.checks import check
from potstill.data.formats import read_manifest
from potstill.data.pixels import load_pixels
from potstill.data.splits import folds, hold_out
from potstill.errors import ConfigError, DataError
from tests.data.pictures import bomb, encoded, picture
from tests.worlds import one_image

SIDE = 12
CARD = {"size": (SIDE, SIDE), "resize": SIDE, "channels": 3}
ROW = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).round().astype(np.uint8)


@pytest.fixture
def pixels_of(tree):
    """Write bytes as cat/odd.jpg among good images and return its pixels, which must be the same on every road."""

    def through(content: bytes, name: str = "odd.jpg") -> np.ndarray:
        root = tree("cat/0.png", "dog/0.png", size=(SIDE, SIDE))
        file = root / "cat" / name
        file.write_bytes(content)
        manifest = read_manifest(root)
        (row,) = (r for r in range(3) if manifest.name(r) == f"cat/{name}")
        trained = load_pixels(manifest, **CARD).take(np.array([row]))
        assert np.array_equal(trained, one_image(file, **CARD))
        listed = np.broadcast_to(manifest.image(row), (SIDE, SIDE, 3))
        assert np.array_equal(listed.transpose(2, 0, 1), trained[0])
        return trained[0].numpy().transpose(1, 2, 0)

    return through


@pytest.fixture
def refused(tree):
    """Write bytes as cat/odd.jpg among good images and return the sentences with which they are refused."""

    def sentences(content: bytes) -> str:
        root = tree("cat/0.png", "dog/0.png", size=(SIDE, SIDE))
        (root / "cat" / "odd.jpg").write_bytes(content)
        with pytest.raises(DataError) as listing:
            read_manifest(root)
        with pytest.raises(DataError) as alone:
            one_image(root / "cat" / "odd.jpg", **CARD)
        assert str(alone.value) in str(listing.value)
        return str(listing.value)

    return sentences


def test_sixteen_bit_grey_is_not_white(pixels_of, notes):
    content = encoded(Image.fromarray(ROW.astype(np.uint16) * 257), "PNG")
    assert np.array_equal(pixels_of(content)[..., 0], ROW)
    assert any("1 of 3 images is 16-bit and was scaled by its bit depth" in note for note in notes)


def test_float_is_not_black(pixels_of, refused, notes):
    assert np.array_equal(pixels_of(encoded(Image.fromarray(ROW.astype(np.float32) / 255), "TIFF"))[..., 0], ROW)
    assert any("1 of 3 images holds floats" in note for note in notes)
    assert "holds values from 0 to 255" in refused(encoded(Image.fromarray(ROW.astype(np.float32)), "TIFF"))


def test_exif_orientation_is_applied(pixels_of, notes):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.stack([ROW] * 3, axis=-1)).rotate(90)
    assert np.array_equal(pixels_of(encoded(stored, "PNG", exif=exif))[..., 0], ROW)
    assert any("1 of 3 images was rotated (EXIF orientation)" in note for note in notes)


def test_hidden_colour_under_transparency_is_not_seen(pixels_of, notes):
    rgba = np.full((SIDE, SIDE, 4), (200, 10, 10, 0), np.uint8)
    assert (pixels_of(encoded(Image.fromarray(rgba), "PNG")) == 255).all()
    assert any("1 of 3 images has transparency" in note for note in notes)


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "1"])
def test_cmyk_palette_and_grey_are_converted(pixels_of, mode):
    image = Image.new("RGB", (SIDE, SIDE), "white").convert(mode)
    image.paste(image.getpixel((0, 0)), (0, 0, 6, 6))
    assert (pixels_of(encoded(image, "TIFF")) == 255).all()


def test_an_animation_gives_its_first_frame(pixels_of, notes):
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    frames[1].putpixel((0, 0), (0, 255, 0))
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels_of(content) == (255, 0, 0)).all()
    assert any("1 of 3 images is animated" in note for note in notes)


def test_a_truncated_photo_is_not_half_grey(refused):
    whole = encoded(picture("x", (60, 60)), "JPEG")
    assert "odd.jpg is damaged or truncated" in refused(whole[: len(whole) // 2])


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty (0 bytes)"), (b"<html>Not Found", "is a web page")])
def test_no_image_is_neither_skipped_nor_black(refused, content, what):
    assert f"odd.jpg {what}" in refused(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("megapixels", [120, 400])
def test_bombs_are_not_decoded(refused, megapixels):
    assert "has more than 89 million pixels" in refused(bomb(megapixels * 100, 10_000))


def test_a_wrong_ending_is_read_by_content(pixels_of):
    image = picture("x", (SIDE, SIDE))
    assert np.array_equal(pixels_of(encoded(image, "PNG"), "odd.gif"), np.asarray(image))


def test_heic_is_not_dropped_but_names_its_plug_in(refused):
    assert "pip install pillow-heif" in refused(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40))


PAIRS = tuple(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(4))


def test_split_folders_are_no_classes(tree):
    root = tree(*(f"pets/{split}/{name}" for split in ("train", "val") for name in PAIRS))
    assert read_manifest(root / "pets").classes == ("cat", "dog")
    with pytest.raises(DataError, match="one level too high: .*'pets' .* split folders"):
        read_manifest(root)


def test_a_flat_folder_is_unlabelled(tree, notes):
    assert read_manifest(tree("a.png", "b.png")).classes == ()
    assert any("used without labels" in note for note in notes)


def test_folders_of_other_programs_are_no_classes(tree, notes):
    assert read_manifest(tree(*PAIRS, ".ipynb_checkpoints/0.png", "__MACOSX/0.png")).classes == ("cat", "dog")
    assert any(".ipynb_checkpoints, __MACOSX" in note for note in notes)


def test_class_names_are_in_natural_order_and_travel_with_the_manifest(tree):
    assert read_manifest(tree("class1/0.png", "class10/0.png", "class2/0.png")).classes == (
        "class1",
        "class2",
        "class10",
    )


def test_near_equal_class_names_are_told(tree, notes):
    read_manifest(tree("Cat /0.png", "cat/0.png", "dog/0.png"))
    assert any("nearly the same name: 'cat' and 'Cat '" in note for note in notes)


def test_names_of_files_say_nothing_about_splits(tree):
    manifest = read_manifest(tree("cat/train.png", "cat/test tubes.png", "dog/val.png", "dog/a.png"))
    assert len(manifest.rows("train")) == 4


def test_an_empty_class_is_an_error_unless_accepted(tree):
    root = tree(*PAIRS, "fox/")
    with pytest.raises(DataError, match="no images of 'fox'"):
        read_manifest(root)
    assert read_manifest(root, allow_empty=True).classes == ("cat", "dog", "fox")


def test_without_validation_the_test_split_stays_the_test_split(tree):
    manifest = read_manifest(tree(*(f"{split}/{name}" for split in ("train", "test") for name in PAIRS)))
    assert not len(manifest.rows("validation"))
    held = hold_out(manifest, split="validation", fraction=0.25, seed=0)
    assert np.array_equal(held.rows("test"), manifest.rows("test"))
    assert np.bincount(held.label[held.rows("validation")]).tolist() == [1, 1]


def test_tiny_classes_and_imbalance_are_told_and_never_all_held_out(tree):
    root = tree(*(f"many/{n}.png" for n in range(30)), "two/0.png", "two/1.png", "one/0.png")
    codes = {finding.code for finding in check(root)}
    assert {"one-image-class", "imbalance"} <= codes
    manifest = read_manifest(root)
    held = hold_out(manifest, split="test", fraction=0.5, seed=0)
    assert np.bincount(held.label[held.rows("test")]).tolist() == [15, 0, 1]
    with pytest.raises(ConfigError, match="'one' has 1"):
        folds(manifest, 2, seed=0)


def test_copies_across_splits_are_found_and_never_made(tree):
    root = tree(*(f"{split}/{name}" for split in ("train", "test") for name in PAIRS), size=(32, 32))
    copied(root, "train/cat/0.png", "test/cat/9.png")
    assert [finding.code for finding in check(root)] == ["copies-test"]
    with pytest.raises(DataError, match="1 of 9 test images"):
        read_manifest(root)
    flat = tree(*PAIRS, size=(32, 32), root="flat")
    for n in range(4):
        copied(flat, f"cat/{n}.png", f"cat/copy {n}.png")
    for seed in range(5):
        held = hold_out(read_manifest(flat), split="test", fraction=0.4, seed=seed)
        assert not set(held.digest[held.rows("test")]) & set(held.digest[held.rows("train")])


def test_conflicting_labels_on_copies_are_listed(tree):
    root = tree(*PAIRS, size=(32, 32))
    copied(root, "cat/0.png", "dog/9.png")
    (finding,) = check(root)
    assert finding.code == "copies-conflict" and finding.severity == "error"


def copied(root: Path, source: str, copy: str) -> None:
    (root / copy).write_bytes((root / source).read_bytes())

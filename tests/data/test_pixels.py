"""The decoded images of a manifest as one array: the same pixels whatever the road, and never half of them."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from potstill.data import pixels as pixels_module
from potstill.data import squares
from potstill.data.formats import from_arrays, read_manifest
from potstill.data.pixels import load_pixels
from potstill.errors import DataError, RunError
from tests.data.pictures import picture
from tests.worlds import one_image

PHOTO = {"size": (64, 64), "resize": 72, "channels": 3}


@pytest.fixture
def photos(tree):
    """Six photos of different sizes, in two classes."""
    root = tree("cat/", "dog/")
    for n, size in enumerate([(90, 120), (120, 90), (80, 80), (200, 75), (75, 75), (300, 301)]):
        picture(f"photo {n}", size).save(root / ("cat", "dog")[n % 2] / f"{n}.png")
    return root


def test_small_images_of_one_size_stay_as_they_are(tree):
    manifest = read_manifest(tree("a/0.png", "a/1.png", "b/0.png", size=(9, 12)))
    pixels = load_pixels(manifest, **PHOTO)
    assert pixels.shape == (3, 3, 9, 12)
    rows = np.array([2, 0, 2])
    expected = np.stack([manifest.image(r).transpose(2, 0, 1) for r in rows])
    taken = pixels.take(rows)
    assert taken.dtype == torch.uint8 and np.array_equal(taken.numpy(), expected)


def test_a_trained_model_gets_its_own_size_from_small_images(tree):
    manifest = read_manifest(tree("a/0.png", "b/0.png", size=(9, 12)))
    made = load_pixels(manifest, size=(6, 6), resize=6, channels=3, keep_small=False)
    assert made.shape == (2, 3, 6, 6)
    same = load_pixels(manifest, size=(9, 12), resize=9, channels=3, keep_small=False)
    assert same.shape == (2, 3, 9, 12)


def test_small_images_of_many_sizes_are_made_equal_in_memory(tree, cache):
    root = tree("a/0.png", "b/0.png")
    picture("odd", (30, 20)).save(root / "b" / "odd.png")
    pixels = load_pixels(read_manifest(root), size=(16, 16), resize=16, channels=1)
    assert pixels.shape == (3, 1, 16, 16) and not (cache / "pixels").exists()


def test_sizes_that_differ_where_the_sample_did_not_look(tree):
    root = tree(*(f"{c}/{n}.png" for c in "ab" for n in range(40)))
    picture("odd", (30, 20)).save(root / "a" / "1.png")
    assert load_pixels(read_manifest(root), size=(8, 8), resize=8, channels=3).shape == (80, 3, 8, 8)


def test_sizes_that_differ_are_noticed_in_processes_too(tree, monkeypatch):
    root = tree(*(f"{c}/{n}.png" for c in "ab" for n in range(300)))
    picture("odd", (30, 20)).save(root / "a" / "1.png")
    manifest = read_manifest(root)
    monkeypatch.setattr("potstill.data.workers.WORTHWHILE", 1e-6)
    assert load_pixels(manifest, size=(8, 8), resize=8, channels=3).shape == (600, 3, 8, 8)


def test_grey_and_colour_become_what_is_asked_for():
    grey = from_arrays(np.arange(2 * 25, dtype=np.uint8).reshape(2, 5, 5))
    colour = load_pixels(grey, size=None, resize=None, channels=3).take(np.arange(2))
    assert (colour == colour[:, :1]).all() and np.array_equal(colour[:, 0].numpy(), grey.source.images[..., 0])
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    made = load_pixels(from_arrays(rgb), size=None, resize=None, channels=1).take(np.arange(2))
    assert np.abs(made[:, 0].numpy() - rgb @ [0.299, 0.587, 0.114]).max() <= 1


def test_photos_are_mapped_and_equal_to_one_image_and_near_torchvision(photos, cache):
    manifest = read_manifest(photos)
    pixels = load_pixels(manifest, **PHOTO)
    assert pixels.shape == (6, 3, 72, 72)
    theirs = v2.Compose([v2.Resize(72), v2.CenterCrop(72)])
    for row in range(6):
        mine = pixels.take(np.array([row]))
        assert torch.equal(mine, one_image(photos / manifest.name(row), **PHOTO))
        reference = np.asarray(theirs(Image.open(photos / manifest.name(row)))).transpose(2, 0, 1)
        shifted = np.abs(mine[0].numpy().astype(int) - reference).mean()  # crops differ by less than a pixel
        assert shifted < (1 if manifest.image(row).shape[0] == manifest.image(row).shape[1] else 25)


def test_the_window_holds_the_crop_of_a_wide_model():
    assert squares.window_of((224, 224), 256) == (256, 256)
    assert squares.window_of((32, 64), 32) == (32, 64)
    wide = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    assert np.array_equal(squares.fitted(wide, (32, 64), 3), wide.transpose(2, 0, 1))


def test_the_second_time_nothing_is_decoded(photos, monkeypatch):
    manifest = read_manifest(photos)
    first = load_pixels(manifest, **PHOTO).take(np.arange(6))
    monkeypatch.setattr(squares, "fitted", None)
    again = load_pixels(manifest.with_split(np.full(6, 2, np.uint8)), **PHOTO)
    assert torch.equal(again.take(np.arange(6)), first)


def test_one_more_photo_decodes_one_photo(photos, cache, monkeypatch):
    first = load_pixels(read_manifest(photos), **PHOTO)
    picture("one more", (130, 90)).save(photos / "cat" / "1more.png")
    (photos / "dog" / "3.png").unlink()
    manifest, written = read_manifest(photos), []
    write = squares.write_fitted

    def noting(source, *rest):
        written.extend(source.names)
        return write(source, *rest)

    monkeypatch.setattr(squares, "write_fitted", noting)
    pixels = load_pixels(manifest, **PHOTO)
    assert [str(name) for name in written] == ["cat/1more.png"]
    alone = load_pixels(manifest, **PHOTO, cache=cache / "other").take(np.arange(6))
    assert len(written) == 7 and torch.equal(pixels.take(np.arange(6)), alone)
    assert torch.equal(first.take(np.array([0])), alone[:1])


def test_an_interrupted_run_goes_on(photos, cache, monkeypatch):
    manifest = read_manifest(photos)
    whole = load_pixels(manifest, **PHOTO).take(np.arange(6))
    shutil.rmtree(cache / "pixels")
    monkeypatch.setattr(pixels_module, "_CHUNK", 2)
    write, written = squares.write_fitted, []

    def interrupted(source, window, channels, fit, file, place):
        if place == 4 and len(written) == 2:
            raise KeyboardInterrupt
        written.append(place)
        return write(source, window, channels, fit, file, place)

    monkeypatch.setattr(squares, "write_fitted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_pixels(manifest, **PHOTO)
    assert not list(cache.rglob("manifest.json"))
    written.append(None)
    assert torch.equal(load_pixels(manifest, **PHOTO).take(np.arange(6)), whole)
    assert written == [0, 2, None, 4]


def test_a_damaged_cache_is_made_anew(photos, cache):
    manifest = read_manifest(photos)
    whole = load_pixels(manifest, **PHOTO).take(np.arange(6))
    (file,) = cache.rglob("pixels.u8")
    file.write_bytes(b"short")
    assert torch.equal(load_pixels(manifest, **PHOTO).take(np.arange(6)), whole)


def test_too_little_space_is_told_before_anything_is_written(photos, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    manifest = read_manifest(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(RunError, match="need .* kB in .* and .* kB are free .* POTSTILL_CACHE"):
        load_pixels(manifest, **PHOTO)
    assert not (cache / "pixels").exists()


@pytest.mark.parametrize(("number", "kept"), [(errno.ENOSPC, False), (errno.EROFS, True)])
def test_a_disk_that_fails_midway_leaves_nothing_that_looks_whole(photos, cache, monkeypatch, number, kept):
    def full(*_):
        raise OSError(number, "failed")

    monkeypatch.setattr(squares, "write_fitted", full)
    with pytest.raises(RunError, match="POTSTILL_CACHE"):
        load_pixels(read_manifest(photos), **PHOTO)
    assert not list(cache.rglob("manifest.json"))
    assert bool(list(cache.rglob("pixels.u8"))) == kept


def test_an_image_that_broke_since_it_was_listed(photos, cache, monkeypatch):
    monkeypatch.setattr(pixels_module, "_SAMPLE", 1)
    manifest = read_manifest(photos)
    (photos / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 image changed since(.|\n)*3.png is empty"):
        load_pixels(manifest, **PHOTO)
    assert not list((cache / "pixels").rglob("manifest.json"))


def test_rows_of_a_selection_are_its_own(photos):
    manifest = read_manifest(photos)
    chosen = manifest.select(np.array([5, 1]))
    assert torch.equal(
        load_pixels(chosen, **PHOTO).take(np.arange(2)), load_pixels(manifest, **PHOTO).take(np.array([5, 1]))
    )


def test_many_files_go_through_processes_with_the_same_result(tree, monkeypatch):
    root = tree(*(f"{c}/{n}.png" for c in "ab" for n in range(150)), size=(6, 6))
    manifest = read_manifest(root)
    alone = load_pixels(manifest, size=None, resize=None, channels=3).take(np.arange(300))
    monkeypatch.setattr("potstill.data.workers.WORTHWHILE", 1e-6)
    assert torch.equal(load_pixels(manifest, size=None, resize=None, channels=3).take(np.arange(300)), alone)


def test_one_grey_image_may_be_written_to(tree):
    root = tree("a/")
    picture("grey", (9, 9)).convert("L").save(root / "a" / "0.png")
    made = one_image(root / "a" / "0.png", size=(9, 9), resize=9, channels=1)
    made += 1  # torch warns, which is an error here, where the memory is not its own
    assert made.shape == (1, 1, 9, 9)

"""Batches are the same whoever makes them: any number of workers, any start, any company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from potstill.data import workers
from potstill.data.augment import parse_policy
from potstill.data.formats import from_arrays, read_manifest
from potstill.data.loader import Batch, Loader, Order
from potstill.data.manifest import UNLABELLED
from potstill.data.pixels import load_pixels
from potstill.data.views import View

STEPS = range(5, 13)  # from the middle of an epoch into the next


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of different sizes, too large to be kept as they are."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(40):
        target = folder / "train" / ("cat", "dog")[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        size = (int(random.integers(90, 120)), int(random.integers(90, 120)), 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(target)
    return folder


def loader(photos: Path, cache: Path) -> tuple[Loader, Order]:
    manifest = read_manifest(photos)
    pixels = load_pixels(manifest, size=(72, 72), resize=80, channels=3, cache=cache)
    view = View(parse_policy(["photo", {"brightness": 0.2}]), size=(72, 72), seed=3)
    return Loader(manifest, pixels, view, mix="mixup"), Order(manifest, batch_size=8, seed=1, views=4)


def test_an_epoch_of_labelled_images_alone_is_a_pass_over_these() -> None:
    images, label = np.zeros((60, 8, 8), np.uint8), np.arange(60) % 2
    label[20:] = UNLABELLED
    manifest = from_arrays(images, label, np.full(60, "train"), classes=("a", "b"))
    labelled = Order(manifest, batch_size=8, seed=0, views=1, labelled_share=1.0)
    assert (labelled.steps_per_epoch, labelled.batch_size) == (2, 8)
    assert (manifest.label[np.concatenate([labelled.at(step)[0] for step in range(5)])] != UNLABELLED).all()
    assert Order(manifest, batch_size=8, seed=0, views=1).steps_per_epoch == 7
    assert Order(manifest, batch_size=128, seed=0, views=1, labelled_share=1.0).batch_size == 20


@pytest.mark.parametrize(("given", "images", "expected"), [
    (None, 999, 32), (None, 1000, 128), (None, 20, 20), (64, 999, 64), (64, 5000, 64), (64, 50, 50),
])  # fmt: skip
def test_few_images_have_small_batches(given: int | None, images: int, expected: int) -> None:
    manifest = from_arrays(np.zeros((images, 4, 4), np.uint8), np.arange(images) % 2, np.full(images, "train"))
    order = Order(manifest, batch_size=given, seed=0, views=1)
    assert (order.batch_size, order.steps_per_epoch) == (expected, images // expected)


def same(one: Batch, other: Batch) -> bool:
    columns = ("image", "label", "index", "view")
    mixed = torch.equal(one.mixed_image(), other.mixed_image())
    return mixed and all(torch.equal(getattr(one, name), getattr(other, name)) for name in columns)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    alone, order = loader(photos, tmp_path / "alone")
    expected = [alone.train_batch(order, step) for step in STEPS]
    decoding = workers.in_processes

    def decoded(work, jobs, **settings):
        """Decode with `count` processes, whatever the amount of work would suggest."""
        return decoding(work, jobs, **{**settings, "seconds": 0.0 if count == 0 else 1e6})

    monkeypatch.setattr("potstill.data.pixels.in_processes", decoded)
    monkeypatch.setattr("joblib.cpu_count", lambda *_, **__: max(count, 1))
    made, order = loader(photos, tmp_path / "made")
    if count == 0:
        found = [made.train_batch(order, step) for step in STEPS]
    else:
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(lambda step: made.train_batch(order, step), STEPS))
    assert all(map(same, found, expected))


def test_a_start_in_the_middle_needs_no_beginning(photos: Path, tmp_path: Path) -> None:
    straight, order = loader(photos, tmp_path)
    before = [straight.train_batch(order, step) for step in range(13)]
    late, order = loader(photos, tmp_path)
    assert all(same(late.train_batch(order, step), before[step]) for step in (12, 5, 9))

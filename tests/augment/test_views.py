"""A view depends on (seed, index, view) and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.data.augment import parse_policy
from potstill.data.augment.policy import OPERATIONS
from potstill.data.views import CLEAN, View

SIZE = (24, 20)
SPECS = ["none", "shift", "cifar", "photo", *OPERATIONS]


def pixels(count: int = 37, *, channels: int = 3, size: tuple[int, int] = (28, 26)) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=torch.manual_seed(0))


def view_of(spec: object, *, seed: int = 5, size: tuple[int, int] = SIZE) -> View:
    return View(parse_policy(spec), size=size, seed=seed)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(spec, channels):
    images, view = pixels(channels=channels), view_of(spec)
    index, number = np.arange(37) * 11 + 3, np.arange(37) % 5 - 1
    whole = view(images, index, number)
    order = np.random.default_rng(0).permutation(37)
    pieces = [order[start : start + 5] for start in range(0, 37, 5)] + [np.array([7])]
    for piece in pieces:
        assert torch.equal(view(images[piece], index[piece], number[piece]), whole[piece])
    assert whole.dtype == torch.float32 and whole.shape == (37, channels, *SIZE)
    assert 0 <= whole.min() and whole.max() <= 1


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_clean_row_is_the_centre_crop(spec):
    images, view = pixels(8), view_of(spec)
    number = np.array([CLEAN, 0, CLEAN, 1, 2, CLEAN, 3, CLEAN])
    clean = number == CLEAN
    result = view(images, np.arange(8), number)
    assert torch.equal(result[clean], images[clean][:, :, 2:26, 3:23] / 255)


def test_tensors_and_arrays_name_the_same_views():
    images, view = pixels(6), view_of("cifar")
    index, number = np.arange(6), np.full(6, 2)
    assert torch.equal(view(images, index, number), view(images, torch.from_numpy(index), torch.from_numpy(number)))


def test_views_seeds_and_indices_differ():
    images = pixels(1).expand(64, -1, -1, -1)
    first = view_of("cifar")(images, np.arange(64), np.zeros(64, int))
    assert len(first.unique(dim=0)) > 40  # of 2 * 13 * 15 equally likely ones
    assert not torch.equal(first, view_of("cifar")(images, np.arange(64), np.ones(64, int)))
    assert not torch.equal(first, view_of("cifar", seed=6)(images, np.arange(64), np.zeros(64, int)))


def test_an_operation_keeps_its_draws_when_another_comes_before_it():
    images, index, number = pixels(32, size=SIZE), np.arange(32), np.zeros(32, int)
    flipped = view_of("flip")(images, index, number)
    assert torch.equal(flipped, view_of([{"pad-crop": 0}, "flip"])(images, index, number))
    twice = view_of(["flip", "flip"])(images, index, number)
    assert not torch.equal(twice, images / 255)  # each has draws of its own


def test_the_fingerprint_names_what_decides_the_pixels():
    same = view_of([{"pad-crop": 4}, {"flip": 0.5}])
    assert same.fingerprint == view_of("cifar").fingerprint
    others = [
        view_of("shift"),
        view_of("cifar", seed=6),
        view_of("cifar", size=(20, 20)),
        view_of(["flip", "pad-crop"]),
    ]
    assert len({view.fingerprint for view in [same, *others]}) == 5


def test_the_pixels_that_came_in_are_left_as_they_were():
    images = pixels(16)
    before = images.clone()
    view_of([{"shift": {"p": 0.5}}, "pad-crop", "flip"])(images, np.arange(16), np.zeros(16, int))
    assert torch.equal(images, before)


@pytest.mark.parametrize("spec", ["photo", "trivialaugment"])
def test_threads_and_memory_layout_change_nothing(spec):
    """Enough pixels that the resized crops are dealt to threads."""
    images, view = pixels(24, size=(140, 150)), view_of(spec, size=(128, 128))
    index, number = np.arange(24), np.full(24, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = view(images, index, number)
        torch.set_num_threads(3)
        assert torch.equal(view(images, index, number), alone)
        last = view(images.contiguous(memory_format=torch.channels_last), index, number)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(last, alone)

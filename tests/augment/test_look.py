"""What a person is shown: the contact sheet, and which operations change the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.data.augment import parse_policy
from potstill.data.augment.probe import CANDIDATES, COLOUR, probe_augment
from potstill.data.augment.sheet import contact_sheet
from potstill.data.manifest import Manifest
from potstill.data.pixels import Pixels
from potstill.data.views import View
from potstill.errors import DataError


def digits(count: int = 1797) -> tuple[Manifest, Pixels]:
    """Return scikit-learn's 8x8 digits, all in train."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = (loaded.images[:count, None] * (255 / 16)).round().astype(np.uint8)
    numbers = np.arange(count, dtype=np.uint64)
    classes = tuple("0123456789")
    label = loaded.target[:count].astype(np.int64)
    return Manifest(None, label, np.zeros(count, np.uint8), classes, numbers, root="digits"), Pixels(images)


def test_a_sheet_has_a_line_for_each_row_and_a_column_for_each_view():
    pixels = Pixels(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    view = View(parse_policy("flip"), size=(32, 32), seed=0)
    sheet = contact_sheet(pixels, view, [4, 1], views=3)
    assert sheet.mode == "RGB" and sheet.size == (4 * 100 + 4, 2 * 100 + 4)  # 96 pixels and 4 between
    clean = np.asarray(sheet)[104:200:3, 4:100:3]
    assert np.array_equal(clean.transpose(2, 0, 1), pixels.take(np.array([1]))[0].numpy())
    second = np.asarray(sheet)[4:100:3, 204:300:3]
    shown = view(pixels.take(np.array([4])), np.array([4]), np.array([1]))
    assert np.array_equal(second.transpose(2, 0, 1), (shown[0] * 255).round().to(torch.uint8).numpy())


def test_mirrored_digits_cost_and_small_shifts_do_not():
    manifest, pixels = digits(900)
    tried = [{"shift": 1}, {"flip": 1}, {"flip-vertical": 1}, {"brightness": 0.2}]
    effects = {effect.operation: effect for effect in probe_augment(manifest, pixels, size=(8, 8), operations=tried)}
    assert effects["{flip: 1}"].verdict == effects["{flip-vertical: 1}"].verdict == "costs"
    assert effects["{shift: 1}"].verdict != "costs" and effects["{brightness: 0.2}"].verdict != "costs"
    flip = effects["{flip: 1}"]
    assert 0 < flip.interval[0] < flip.drop < flip.interval[1] and 80 < flip.accuracy < 99
    drops = [effect.drop for effect in effects.values()]
    assert drops == sorted(drops, reverse=True)


def test_a_probe_is_the_same_twice_and_skips_colour_on_grey_images():
    manifest, pixels = digits(300)
    found = probe_augment(manifest, pixels, size=(8, 8), limit=120)
    assert found == probe_augment(manifest, pixels, size=(8, 8), limit=120)
    assert len(found) == len(CANDIDATES) - len(COLOUR)


def test_too_few_images_are_said_to_be_too_few():
    manifest, pixels = digits(12)
    with pytest.raises(DataError, match="digits has too few labelled images"):
        probe_augment(manifest, pixels, size=(8, 8))

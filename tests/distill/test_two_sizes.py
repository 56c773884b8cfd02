"""Teacher and student with different input sizes: the same crops of a photo, each at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from potstill import progress
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.distill.recipes import data_of
from potstill.stages.recipe import DataConfig, Recipe, Views
from potstill.stages.teacher.network import NetworkTeacher
from potstill.stages.teacher.prepared import Replay
from potstill.stages.test_split import clean_logits

SMALL, LARGE = 16, 32
ROWS = np.arange(6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of smooth colours, so that two renderings of one crop differ by little."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
                coarse.resize((120, 96), Image.Resampling.BICUBIC).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def small(photos: Path) -> Data:
    return dataset.prepare(DataConfig(path=str(photos), size=SMALL))


def test_the_larger_pixels_are_the_same_crops(photos: Path) -> None:
    data = dataset.prepare(DataConfig(path=str(photos), size=64))
    large = data.for_input_of(data.model("builtin:cnn").card.replace(crop=(128, 128)))
    assert (data.crop, large.crop) == ((64, 64), (128, 128))
    image, larger, other = (crops(*each) for each in ((data, 0), (large, 0), (data, 1)))
    shrunk = F.interpolate(larger, scale_factor=0.5, mode="bilinear", antialias=True)
    assert float((shrunk - image).abs().mean()) < 0.02 < float((other - image).abs().mean())


def crops(data: Data, seed: int) -> torch.Tensor:
    return data.loader(augment="photo", seed=seed).batch(ROWS, np.arange(6) % 3).image


def test_stored_logits_are_those_of_the_teachers_own_size(small: Data, tmp_path: Path) -> None:
    network = small.model("builtin:cnn", size=LARGE)
    network = network.with_card(network.card.replace(crop=(LARGE, LARGE), resize=round(LARGE / 0.875))).eval()
    teacher = NetworkTeacher(model=network, card=network.card, identity="teacher")
    bound = teacher.bind(small, Replay(Views("photo", 2), 4, 1, tmp_path))
    teacher.bind(small, Replay(Views("photo", 2), 4, 1, tmp_path, stored=False)).function()
    assert any("16 pixels, enlarged to its 32" in note for note in progress.display().notes)
    large = small.for_input_of(network.card)
    loaders = [data.loader(augment="photo") for data in (small, large)]
    rows = small.manifest.rows("train")[:6]
    shown, at_own_size = (loader.batch(rows, np.ones(6, int)) for loader in loaders)
    with torch.inference_mode():
        expected = network(at_own_size.image).logits
        stored = bound.function()(shown).logits
    assert torch.allclose(stored, expected, atol=2e-3)
    held = small.manifest.rows("test")
    assert np.array_equal(clean_logits(network, small, held), clean_logits(network, large, held))


def test_a_recipe_with_a_size_trains_the_student_at_it(photos: Path) -> None:
    sized = Recipe.model_validate(
        {
            "data": {"path": str(photos), "size": SMALL},
            "teacher": {"model": "mobilenetv2_050"},
            "student": {"model": "mobilenetv2_035", "size": SMALL},
        }
    )
    assert data_of(sized).crop == (SMALL, SMALL)
    student = data_of(sized).model("mobilenetv2_035", size=SMALL)
    assert (student.card.size, student.card.crop) == ((SMALL, SMALL), (SMALL, SMALL))

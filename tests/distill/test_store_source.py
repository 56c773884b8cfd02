"""A store that was begun with other weights, data, transform or normalisation is refused, and the difference named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from potstill.config import build
from potstill.data.pixels import load_pixels
from potstill.errors import RunError
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.label import LabelConfig, label
from potstill.stages.teacher.network import NetworkTeacher
from tests.distill.lessons import model
from tests.worlds import shapes


def data(seed: int = 0) -> Data:
    manifest = shapes(seed=seed)
    return Data(manifest, load_pixels(manifest, size=(8, 8), resize=8, channels=1), (8, 8), 8)


def source(network: Classifier) -> NetworkTeacher:
    return NetworkTeacher(model=network, card=network.card, identity=bits(network))


def write(folder: Path, *, seed: int = 1, images: int = 0, mean: float = 0.5, **settings: Any) -> None:
    network = model("mlp", seed=seed, hidden=8).eval()
    network = network.with_card(network.card.replace(mean=(mean,)))
    config = build(LabelConfig, {"data": {"path": "shapes"}, "augment": "shift", **settings})
    label(config, data(images), source(network), folder)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"seed": 2}, "teacher"),
        ({"images": 1}, "images"),
        ({"augment": "none"}, "augmentation"),
        ({"mean": 0.25}, "normalisation"),
    ],
    ids=["weights", "data", "transform", "normalisation"],
)
def test_another_source_is_refused(tmp_path: Path, changed: dict[str, Any], word: str) -> None:
    write(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("part-*")}
    with pytest.raises(RunError, match=rf"different: (\w+, )*{word}\b") as caught:
        write(tmp_path, **changed)
    assert "--out" in str(caught.value)
    write(tmp_path)
    assert before and {file: file.stat().st_mtime_ns for file in before} == before

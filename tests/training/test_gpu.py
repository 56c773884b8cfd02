"""Training and inference on an accelerator are those of the processor, up to rounding; and the script for one runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, lecture_terms
from potstill.teachers.live import LiveTeacher
from potstill.training import devices, engine, predict
from potstill.training.settings import TrainConfig
from tests.worlds import shapes

needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def trained(device: torch.device, folder: Path, precision: str) -> tuple[list[float], np.ndarray]:
    """Return the losses of two epochs with a live teacher, and logits, on a device."""
    from potstill.data.augment import parse_policy

    manifest = shapes(96)
    pixels = load_pixels(manifest, size=(8, 8), resize=8, channels=1)
    loader = Loader(manifest, pixels, View(parse_policy("shift"), size=(8, 8), seed=0), device=device)

    def network(width: int) -> Classifier:
        classes = manifest.classes
        options = {"width": width}
        return zoo.create("builtin:small-cnn", classes=classes, size=(8, 8), channels=1, options=options, seed=0)

    student, teacher = network(8).to(device), LiveTeacher(network(16).to(device))
    objective = Objective(lecture_terms(alpha=0.5, temperature=2.0), classes=3, teacher=teacher)
    config = TrainConfig(epochs=2, batch_size=16, lr=0.01, precision=precision, compile=False)  # pyright: ignore
    order = Order(manifest, batch_size=16, seed=0, views=2)
    fitted = engine.fit(student, objective, loader, order, config, folder=folder, seed=0)
    logits = predict.predict_logits(student, loader, manifest.rows("validation"))
    return [row["train"]["loss"] for row in fitted.rows], logits


@pytest.mark.gpu
@needs_device
@pytest.mark.parametrize(("precision", "near"), [("fp32", 0.02), ("bf16", 0.1)])
def test_a_training_on_the_device_is_that_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, near: float
) -> None:
    there = trained(devices.device(), tmp_path / "there", precision)
    again = trained(devices.device(), tmp_path / "again", precision)
    assert there[0] == again[0] and np.array_equal(there[1], again[1])  # repeatable on the device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    here = trained(torch.device("cpu"), tmp_path / "here", "fp32")
    assert there[0] == pytest.approx(here[0], rel=near)


@pytest.mark.slow
def test_the_script_for_an_accelerator_runs_dry(tmp_path: Path) -> None:
    found = gpu.main(["--dry", "--out", str(tmp_path / "gpu.json")])
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert set(found["methods"]["test_accuracy"]) == {"control", "kd", "dist"} and found["methods"]["epochs"] == 1

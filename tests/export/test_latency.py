"""Latency: plausible, ordered by work, measured side by side."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from potstill.errors import ModelError
from potstill.exporters import export_onnx
from potstill.model_files import latency
from potstill.model_files.latency import latency_ms
from potstill.model_files.onnx import OnnxModel
from potstill.models.outputs import Classifier

from . import nets


@pytest.fixture(scope="module")
def files(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small network, and one with about fifty times the multiplications."""
    large = tmp_path_factory.mktemp("latency") / "large.onnx"
    layers = [nn.Conv2d(3, 32, 3, padding=1), *(nn.Conv2d(32, 32, 3, padding=1) for _ in range(6))]
    wide = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    export_onnx(Classifier(wide, nets.card((64, 64))), large)
    return file, large


def test_more_work_takes_longer(files: tuple[Path, Path]) -> None:
    small, large = latency_ms(files, seconds=0.2)
    for measured in (small, large):
        assert 0 < measured.low_ms <= measured.median_ms <= measured.high_ms
        assert (measured.batch, measured.threads) == (1, 1)
    assert small.median_ms < large.median_ms
    assert small.runs >= 5 and large.runs >= 5


def test_it_times_what_a_clock_outside_sees(files: tuple[Path, Path]) -> None:
    measured = latency_ms([files[1]], seconds=0.2)[0]
    model = OnnxModel(files[1], threads=1)
    image = model.arranged(torch.rand(1, 3, 64, 64))
    times = []
    for _ in range(40):
        started = time.perf_counter()
        model.run(image)
        times.append(1000 * (time.perf_counter() - started))
    assert 0.2 * min(times) < measured.median_ms < 5 * max(times)


def test_a_batch_takes_longer_than_an_image(files: tuple[Path, Path]) -> None:
    one = latency_ms([files[1]], seconds=0.1)[0]
    many = latency_ms([files[1]], batch=8, threads=0, seconds=0.1)[0]
    assert (many.batch, many.threads) == (8, 0)
    assert many.median_ms > one.median_ms
    assert many.images_per_second == pytest.approx(8000 / many.median_ms)
    assert many.to_json()["runs"] == many.runs


def test_files_take_turns(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    block = latency._Runner.block

    def watched(self: latency._Runner) -> None:
        turns.append(id(self))
        block(self)

    monkeypatch.setattr(latency._Runner, "block", watched)
    latency_ms(files, seconds=0.1)
    assert turns[0::2] == [turns[0]] * (len(turns) // 2) and turns[1::2] == [turns[1]] * (len(turns) // 2)
    assert turns[0] != turns[1] and len(turns) >= 4


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        latency_ms([tmp_path / "none.onnx"])

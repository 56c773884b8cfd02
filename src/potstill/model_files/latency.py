"""Latency of models in milliseconds, measured so that ratios hold on a busy machine.

The files are run alternately in short blocks, so that a temporary slowdown of the machine affects all of them, and not
only the file that runs at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from potstill.data.pixels import SMALL
from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.open import find
from potstill.models.outputs import Classifier
from potstill.torch_context import threads as limited

BLOCK = 0.02
"""Seconds that one file runs before the next: long enough for its weights to be in the caches."""
PHOTO = (480, 640)
"""Height and width of the photo that a camera gives."""
LEAST = 5
"""Runs of a slow file."""


@dataclass(frozen=True)
class Latency:
    """Latency of one batch, in milliseconds: median, lower and upper quartile.

    threads: 0 means all cores. runs: number of timed runs.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    batch: int
    threads: int
    runs: int

    @property
    def images_per_second(self) -> float:
        """Images per second at the median."""
        return 1000 * self.batch / self.median_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def latency_ms(
    files: Sequence[Path], *, batch: int = 1, threads: int = 1, seconds: float = 0.5, least: int = LEAST
) -> list[Latency]:
    """Return the latency of each model, measured alternately, in the order of `files`.

    files: exported files, which their runtime runs; packed files and folders, which torch runs on the CPU. batch: batch
    size. threads: 0 for all cores. seconds: measuring time per file; slow files are run at least `least` times. The
    images are noise in 0..1 at the card's size. Of a file that takes photos, the graph behind the preprocessing is
    timed; `from_photo` times all of it.
    Raises `ModelError` if a file cannot be read.
    """
    with limited(threads or joblib.cpu_count()):  # of torch: changing it between runs would cost more than a run
        runners = [_Runner(file, batch, threads) for file in files]
        started = time.perf_counter()
        while time.perf_counter() - started < seconds * len(runners) or min(len(r.times) for r in runners) < least:
            for runner in runners:
                runner.block()
    return [runner.result(batch, threads) for runner in runners]


def from_photo(file: Path, *, seconds: float = 0.2) -> dict[str, Any]:
    """Return `from_photo`: the latency of a file that takes photos, from the decoded photo to the logits.

    It is measured for one photo and one thread, beside that of the network alone, which `latency_ms` measures. The
    photo has PHOTO pixels; for networks that take small images it has the size of these. Empty for other files.
    """
    model = find(str(file), threads=1) if file.suffix == ".onnx" else None
    if not isinstance(model, OnnxModel) or not model.raw:
        return {}
    size = PHOTO if max(model.card.crop) > SMALL else model.card.crop
    photo = np.random.default_rng(0).integers(0, 256, (*size, model.card.channels), dtype=np.uint8)
    model.of_pixels([photo])
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(times) < LEAST:
        started = time.perf_counter()
        model.of_pixels([photo])
        times.append(1000 * (time.perf_counter() - started))
    return {"from_photo": {"size": list(size), "latency_ms": round(float(np.median(times)), 4)}}


class _Runner:
    """One file, loaded for timing."""

    def __init__(self, file: Path, batch: int, threads: int) -> None:
        model = find(str(file), threads=threads or None)
        if model is None:
            raise ModelError(f"There is no file {file}. Give the path of a model.")
        card = model.card
        noise = torch.rand((batch, card.channels, *card.size), generator=torch.Generator().manual_seed(0))
        self._model: Any = TorchModel(model) if isinstance(model, Classifier) else model
        self._image = self._model.arranged(noise)
        self.times: list[float] = []
        self._run()

    def block(self) -> None:
        """Run once untimed, because another file ran before, then time a block."""
        self._run()
        ends = time.perf_counter() + BLOCK
        while True:
            self.times.append(self._run())
            if time.perf_counter() > ends:
                return

    def _run(self) -> float:
        started = time.perf_counter()
        self._model.run(self._image)
        return 1000 * (time.perf_counter() - started)

    def result(self, batch: int, threads: int) -> Latency:
        low, median, high = np.percentile(self.times, [25, 50, 75])
        return Latency(float(median), float(low), float(high), batch, threads, len(self.times))


class TorchModel:
    """A classifier that torch runs on the CPU, to be timed like an exported file."""

    def __init__(self, model: Classifier) -> None:
        self._model = model.cpu().eval()

    def arranged(self, image: Tensor) -> Tensor:
        """Return images [B, C, H, W] in 0..1 as they are."""
        return image

    def run(self, image: Tensor) -> Tensor:
        """Return the logits [B, K]."""
        with torch.inference_mode():
            return self._model(image).logits

"""Milliseconds an image, as the device will see them: the exported file, run by onnxruntime.

Files are measured in turns, so that on a noisy machine they share the noise and their ratios hold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.models.onnx import OnnxModel


@dataclass(frozen=True)
class Latency:
    """Milliseconds a run of `batch` images with `threads` (0: all): median and quartiles over `runs`."""

    median_ms: float
    low_ms: float
    high_ms: float
    batch: int
    threads: int
    runs: int


def latency_ms(files: Sequence[Path], *, batch: int = 1, threads: int = 1, seconds: float = 0.5) -> list[Latency]:
    """Return the latency of each file, spending about `seconds` on each, in turns."""
    runners = [_runner(file, batch, threads) for file in files]
    times: list[list[float]] = [[] for _ in runners]
    for run in runners:
        for _ in range(3):
            run()
    end = time.perf_counter() + seconds * len(runners)
    while time.perf_counter() < end or len(times[0]) < 10:
        for run, taken in zip(runners, times, strict=True):
            began = time.perf_counter()
            run()
            taken.append(1000 * (time.perf_counter() - began))
    return [_summary(taken, batch, threads) for taken in times]


def _runner(file: Path, batch: int, threads: int):
    model = OnnxModel(file, threads=threads)
    shape = (batch, model.card.channels, *model.card.size)
    name = model.session.get_inputs()[0].name
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    return lambda: model.session.run(None, {name: image})


def _summary(taken: list[float], batch: int, threads: int) -> Latency:
    low, median, high = np.percentile(taken, [25, 50, 75])
    return Latency(float(median), float(low), float(high), batch, threads, len(taken))

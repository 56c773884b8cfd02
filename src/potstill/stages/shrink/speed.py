"""How long a training takes: measured steps of each candidate, and epochs that fit into a share of the time.

Numbers of epochs are taken from coarse tiers, so that the noise of a measured speed seldom changes the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from potstill import artifacts, progress
from potstill.data.augment.policy import LARGEST_SMALL
from potstill.models.outputs import Classifier
from potstill.stages.shrink.candidates import Candidate
from potstill.torch_context import threads
from potstill.training import devices

TIERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
STEPS = 6
BATCH = 16
CROWDED = 1.25
"""Workers that train side by side share caches and memory, and images have to be made as well."""


def tier(epochs: float) -> int:
    """Return the largest tier that is not above `epochs`; 0 if that is below 1."""
    return max((one for one in TIERS if one <= epochs), default=0)


class Speeds:
    """Seconds that one training step takes for one image, by candidate, measured once and recorded in a file."""

    def __init__(self, file: Path, build: Callable[[Candidate], Classifier], workers: int) -> None:
        self._file, self._build, self._workers = file, build, workers
        self._known: dict[str, float] = artifacts.read_json(file) if file.is_file() else {}

    def of(self, candidate: Candidate) -> float:
        """Return the seconds of wall time for one image of one epoch in one of the workers."""
        if candidate.network not in self._known:
            with progress.task("Timing a training step", total=1):
                self._known[candidate.network] = measured(self._build(candidate), self._workers)
            artifacts.write_json(self._file, self._known)
        return self._known[candidate.network] * (CROWDED if self._workers > 1 else 1.1)


def measured(model: Classifier, workers: int) -> float:
    """Return the seconds of a step (forward, backward) for one image; with several workers on one thread."""
    with threads(1 if workers > 1 else torch.get_num_threads()):
        return _fastest(model.train(), lambda image: F.cross_entropy(model(image).logits, _zeros(image)).backward())


def answering(model: Classifier) -> float:
    """Return the seconds in which a teacher answers one image, with the threads of this process."""
    with torch.inference_mode():
        return _fastest(model.eval(), lambda image: model(image))


def _fastest(model: Classifier, step: Callable[[torch.Tensor], Any]) -> float:
    """Return the seconds of the fastest step for one image; the first one is not counted."""
    on = devices.device()
    layout = torch.channels_last if max(model.card.size) > LARGEST_SMALL else torch.contiguous_format
    model.to(on).to(memory_format=layout)
    image = torch.rand(BATCH, model.card.channels, *model.card.size, device=on).contiguous(memory_format=layout)
    return min([_seconds(step, image) for _ in range(STEPS)][1:]) / BATCH


def _zeros(image: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(image), dtype=torch.long, device=image.device)


def _seconds(step: Callable[[torch.Tensor], Any], image: torch.Tensor) -> float:
    began = time.perf_counter()
    step(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began

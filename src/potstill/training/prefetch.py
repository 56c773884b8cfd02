"""The next batch, made while this one is trained on.

Only where training is on an accelerator: on a CPU both would share the same cores, and nothing is gained (measured
on two cores: 0.99 times the images a second). A batch is a pure function of the step, so nothing has to be wound
back when training stops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from potstill.data.loader import Batch

Make = Callable[[int, int], Batch]  # (step, part) -> batch


class Prefetcher:
    """Calls `make(step, part)` in a thread, one batch before it is asked for.

    following: from the (step, part) that was asked for to the next one.
    """

    def __init__(self, make: Make, following: Callable[[int, int], tuple[int, int]], device: torch.device) -> None:
        self._make, self._following, self._device = make, following, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: tuple[tuple[int, int], Future] | None = None

    def __call__(self, step: int, part: int) -> Batch:
        """Return the batch."""
        asked = step, part
        future = self._next[1] if self._next and self._next[0] == asked else self._started(asked)
        batch = future.result()
        following = self._following(step, part)
        self._next = following, self._started(following)
        return self._handed_over(batch)

    def _started(self, asked: tuple[int, int]) -> Future:
        return self._thread.submit(self._made, *asked)

    def _made(self, step: int, part: int) -> Batch:
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            batch = self._make(step, part)
        if self._stream:
            self._stream.synchronize()  # this thread waits, the one that trains does not
        return batch

    def _handed_over(self, batch: Batch) -> Batch:
        """Tell the allocator that another stream reads these tensors too."""
        if self._stream:
            for tensor in _tensors(batch):
                tensor.record_stream(torch.cuda.current_stream(self._device))
        return batch

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if not hasattr(value, "__dataclass_fields__"):
        return []
    return [tensor for field in fields(value) for tensor in _tensors(getattr(value, field.name))]

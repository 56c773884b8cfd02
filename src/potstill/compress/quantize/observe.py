"""Calibration: one histogram of the inputs per layer, collected in a single pass over a few batches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from potstill.errors import DataError, ModelError
from potstill.models.inspect.dataflow import evaluating
from potstill.models.inspect.plain_layers import plain_layers

BINS = 8192  # on each side of zero


class Histogram:
    """Counts of values, and their exact extremes, of a stream of tensors.

    The bins divide [-limit, limit] evenly. `limit` is a power of two that is doubled (merging two bins into one) for
    larger values, so the counts are exact. Exact zeros are counted separately: every quantizer represents zero exactly,
    and after a ReLU they would dominate the histogram.
    """

    def __init__(self) -> None:
        self.limit = 2.0**-40
        self.counts = torch.zeros(2 * BINS, dtype=torch.float64)
        self.zeros = 0
        self.low = float("inf")
        self.high = float("-inf")

    def add(self, x: Tensor) -> None:
        """Count the values of a tensor of any shape."""
        x = x.detach().flatten().float()
        if not x.isfinite().all():
            raise DataError(
                "The input of a layer was inf or NaN during calibration. Check that the calibration images and the "
                "model's weights are finite."
            )
        self.low, self.high = min(self.low, x.min().item()), max(self.high, x.max().item())
        while self.limit < max(-self.low, self.high):
            self._double()
        rest = x[x != 0]
        self.zeros += x.numel() - rest.numel()
        bins = (rest * (BINS / self.limit)).floor().long().add(BINS).clamp(max=2 * BINS - 1)
        self.counts += torch.bincount(bins, minlength=2 * BINS).cpu()

    def _double(self) -> None:
        merged = self.counts.view(BINS, 2).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[BINS // 2 : BINS // 2 + BINS] = merged
        self.limit *= 2

    @property
    def centres(self) -> Tensor:
        """The centre of each bin, float64."""
        return (torch.arange(2 * BINS, dtype=torch.float64) + 0.5) * (self.limit / BINS) - self.limit


def observe(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Histogram]:
    """Run `batches` of images [B, C, H, W] through the model in eval mode; return the histogram of each layer's input.

    The result is by path of the layer, in the order of first execution; layers that did not run are not in it.

    Raises:
        DataError: there are no batches, or the input of a layer is inf or NaN.
        ModelError: the model has no plain convolution or linear layer.
    """
    layers = plain_layers(model)
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no convolution or linear layer that can be quantized. "
            "Quantization works on nn.Conv2d and nn.Linear."
        )
    seen: dict[str, Histogram] = {}

    def watch(name: str):
        def hook(layer: nn.Module, arguments: tuple) -> None:
            seen.setdefault(name, Histogram()).add(arguments[0])

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with evaluating(model):
            for image in batches:
                model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise DataError("There are no images for calibration. Use at least one batch; 100 to 500 images are common.")
    return seen

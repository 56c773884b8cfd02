"""Mixed precision: allocation of bits to layers for a maximum file size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from potstill.compress.quantize.convert import quantized
from potstill.compress.quantize.fake import quantized_layers
from potstill.compress.quantize.observe import Histogram
from potstill.compress.quantize.ranges import WeightMethod
from potstill.errors import ConfigError
from potstill.models.inspect.plain_layers import plain_layers


def sensitivity(
    model: nn.Module,
    observed: Mapping[str, Histogram],
    images: Tensor,
    *,
    bits: Collection[int] = (2, 3, 4, 5, 6, 8),
    weight_method: WeightMethod = "absmax",
) -> dict[str, dict[int, float]]:
    """Return by how much rounding the weights of a single layer to each of `bits` moves the logits.

    It is the expected squared change of the logits to second order, with the errors of rounding taken as independent:
    the sum over the weights of their squared error times the squared derivative of the logits, as in arXiv:2210.08502
    with the Gauss-Newton matrix in place of the Fisher matrix, which vanishes where a network is sure. It takes one
    backward pass for each image and no labels.

    images: float32 [N, C, H, W], normalised; a few dozen are enough.
    """
    curvature = _curvature(model, list(observed), images)
    rises: dict[str, dict[int, float]] = {name: {} for name in observed}
    for width in bits:
        rounded = quantized_layers(
            quantized(
                model,
                observed,
                weight_bits=width,
                activation_bits=None,
                first_last_bits=None,
                weight_method=weight_method,
            )
        )
        for name, layer in rounded.items():
            error = (layer.weight_quantizer(layer.weight) - layer.weight).detach()
            rises[name][width] = float((curvature[name] * error.square()).sum())
    return rises


def _curvature(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Return the mean over images of the squared derivatives of the logits by each weight, summed over the logits.

    A random sign for each logit gives the sum in one backward pass, in expectation.
    """
    layers = plain_layers(model)
    weights = [layers[name].weight for name in names]
    random = torch.Generator().manual_seed(0)
    total = [torch.zeros_like(weight) for weight in weights]
    model.eval()
    for image in images.split(1):
        logits = model(image)
        sign = torch.randint(0, 2, logits.shape, generator=random).to(logits) * 2 - 1
        for sum_, gradient in zip(total, torch.autograd.grad((logits * sign).sum(), weights), strict=True):
            sum_ += gradient.square() / len(images)
    return dict(zip(names, total, strict=True))


def allocate(
    rises: Mapping[str, Mapping[int, float]], weights: Mapping[str, int], *, max_bytes: float
) -> dict[str, int]:
    """Choose bits for each layer so that the packed weights fit into `max_bytes` with the smallest sum of rises.

    Greedy: every layer starts at its highest number of bits; the reduction with the smallest rise per byte saved is
    applied until the weights fit. `weights` is the number of weights by layer. The result is the argument of
    `quantized(layer_bits=...)`.

    Raises:
        ConfigError: the lowest number of bits in all layers is still too large.
    """
    least = sum(weights[name] * min(widths) for name, widths in rises.items()) / 8
    if least > max_bytes:
        raise ConfigError(
            f"max_bytes is {max_bytes:.0f}, but the weights need at least {least:.0f} bytes at the lowest number of "
            "bits. Allow more bytes, or prune first."
        )
    chosen = {name: max(widths) for name, widths in rises.items()}
    while sum(weights[name] * bits for name, bits in chosen.items()) / 8 > max_bytes:
        steps = [
            ((rises[name][lower] - rises[name][bits]) / (weights[name] * (bits - lower)), name, lower)
            for name, bits in chosen.items()
            for lower in rises[name]
            if lower < bits
        ]
        _, name, lower = min(steps)
        chosen[name] = lower
    return chosen

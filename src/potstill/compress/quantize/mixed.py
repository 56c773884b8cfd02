"""Mixed precision: allocation of bits to layers for a maximum file size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import nn

from potstill.compress.quantize.convert import quantized
from potstill.compress.quantize.observe import Histogram
from potstill.compress.quantize.ranges import WeightMethod
from potstill.errors import ConfigError
from potstill.models.inspect.plain_layers import plain_layers


def sensitivity(
    model: nn.Module,
    observed: Mapping[str, Histogram],
    loss: Callable[[nn.Module], float],
    *,
    bits: Collection[int] = (2, 3, 4, 5, 6, 8),
    weight_method: WeightMethod = "absmax",
) -> dict[str, dict[int, float]]:
    """Return the increase of `loss` over the float model if the weights of a single layer have each of `bits`.

    `loss` evaluates a model on held-out images; it is called once per layer and width, and once for `model`.
    """
    start = loss(model)
    rises: dict[str, dict[int, float]] = {}
    for name in observed:
        others = [other for other in plain_layers(model) if other != name]
        for width in bits:
            alone = quantized(
                model,
                observed,
                weight_bits=width,
                activation_bits=None,
                first_last_bits=None,
                weight_method=weight_method,
                skip=others,
            )
            rises.setdefault(name, {})[width] = loss(alone) - start
    return rises


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

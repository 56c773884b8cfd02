"""The cost of a forward pass: multiply-accumulates and parameters, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from potstill.models.inspect.dataflow import evaluating


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-accumulates of one image, by layer (convolutions and linear layers; attention products,
    normalisation and additions are not counted). `params`: all parameters of the model."""

    macs: dict[str, int]
    params: int

    @property
    def total_macs(self) -> int:
        return sum(self.macs.values())


def cost(model: nn.Module, image: Tensor) -> Cost:
    """Return the cost of `model` for one image of the size of `image` [B, C, H, W]."""
    macs: dict[str, int] = {}

    def count(name: str):
        def hook(layer: nn.Module, arguments: tuple, result: Tensor) -> None:
            weight = cast(Tensor, layer.weight)
            per_output = weight[0].numel()  # in_channels / groups * kernel height * kernel width
            macs[name] = macs.get(name, 0) + result[0].numel() * per_output

        return hook

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    hooks = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        with evaluating(model):
            model(image[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(macs, sum(parameter.numel() for parameter in model.parameters()))

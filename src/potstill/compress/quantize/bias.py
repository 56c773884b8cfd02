"""Bias correction: rounding weights shifts the mean of a layer's outputs, which the bias can compensate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from potstill.compress.quantize.fake import quantized_layers
from potstill.models.inspect.dataflow import evaluating
from potstill.models.inspect.plain_layers import plain_layers


def correct_bias(model: nn.Module, reference: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy of a quantized model whose layers have the mean outputs of `reference`, channel by channel.

    Empirical bias correction (arXiv:1906.04721). `reference` is the float model that was quantized, `image`
    [B, C, H, W] one batch of calibration images, 100 or more. Layers are corrected in the order of execution, each
    after the ones before it. Layers that run more than once are not changed.
    """
    model = copy.deepcopy(model)
    layers = quantized_layers(model)
    targets = _mean_outputs({n: m for n, m in plain_layers(reference).items() if n in layers}, reference, image)

    def correct(name: str):
        def hook(layer: nn.Module, arguments: tuple, result: Tensor) -> Tensor:
            shift = targets[name][0] - _channel_mean(layer, result)
            old = torch.zeros_like(shift) if layer.bias is None else cast(Tensor, layer.bias)
            layer.bias = nn.Parameter(old + shift)
            return result + (shift if isinstance(layer, nn.Linear) else shift[:, None, None])

        return hook

    once = {name: layer for name, layer in layers.items() if len(targets.get(name, [])) == 1}
    hooks = [layer.register_forward_hook(correct(name)) for name, layer in once.items()]
    _run(model, image, hooks)
    return model


def _mean_outputs(layers: Mapping[str, nn.Module], model: nn.Module, image: Tensor) -> dict[str, list[Tensor]]:
    means: dict[str, list[Tensor]] = {}

    def keep(name: str):
        def hook(layer: nn.Module, arguments: tuple, result: Tensor) -> None:
            means.setdefault(name, []).append(_channel_mean(layer, result))

        return hook

    _run(model, image, [layer.register_forward_hook(keep(name)) for name, layer in layers.items()])
    return means


def _run(model: nn.Module, image: Tensor, hooks: list) -> None:
    try:
        with evaluating(model):
            model(image)
    finally:
        for hook in hooks:
            hook.remove()


def _channel_mean(layer: nn.Module, result: Tensor) -> Tensor:
    channels_last = result if isinstance(layer, nn.Linear) else result.movedim(1, -1)
    return channels_last.flatten(0, -2).mean(0)

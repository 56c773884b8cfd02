"""Simulation of any number format in any model: the effect of fp8 weights, Q4.4 activations or bf16 gradients.

Products and sums stay in float32; only values that a device would store in memory are rounded: the weight and the input
of a layer, and the gradient of its output.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from potstill.compress.formats import IntegerFormat, NumberFormat
from potstill.models.inspect.plain_layers import plain_layers, settle_weights

Formats = NumberFormat | Mapping[str, NumberFormat]


def simulated(
    model: nn.Module,
    *,
    weights: Formats | None = None,
    activations: Formats | None = None,
    gradients: NumberFormat | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return a copy whose convolutions and linear layers use these formats; None keeps the values unchanged.

    weights, activations: one format for all layers, or one for each by its path.

    Rounding uses the straight-through estimator, so the copy can be trained: its weights stay in float32 and are
    rounded when used. Integer formats with scale 1 are fitted to each tensor (largest magnitude, or minimum and maximum
    if unsigned). `generator` is for stochastic rounding, which small gradients need (arXiv:1502.02551). `plain`
    returns an ordinary model with rounded weights.
    """
    model = copy.deepcopy(model)
    for name, layer in plain_layers(model).items():
        if number := _of(weights, name):
            parametrize.register_parametrization(layer, "weight", _RoundedWeight(_Round(number, generator)))
        if number := _of(activations, name):
            layer.register_forward_pre_hook(_InputHook(_Round(number, generator)))
        if gradients:
            layer.register_forward_hook(_GradientHook(_Round(gradients, generator)))
    return model


def _of(formats: Formats | None, name: str) -> NumberFormat | None:
    return formats.get(name) if isinstance(formats, Mapping) else formats


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a simulated model without the simulation: its weights are those of the format."""
    model = copy.deepcopy(model)
    settle_weights(model)
    for layer in model.modules():
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, (_InputHook, _GradientHook))]:
                del hooks[key]
    return model


class _Round:
    """A format with its random generator, which stays shared between copies of a model."""

    def __init__(self, number: NumberFormat, generator: torch.Generator | None) -> None:
        self.number, self.generator = number, generator

    def __deepcopy__(self, memo: dict) -> _Round:
        return self

    def __call__(self, x: Tensor) -> Tensor:
        number = self.number
        if isinstance(number, IntegerFormat) and number.scale == 1:
            number = number.fit(x.min().item(), x.max().item())
        return number.quantize(x, generator=self.generator)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rounding: _Round) -> Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _RoundGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, rounding: _Round) -> Tensor:
        ctx.rounding = rounding
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.rounding(gradient), None


class _RoundedWeight(nn.Module):
    def __init__(self, rounding: _Round) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.rounding)


class _InputHook:
    def __init__(self, rounding: _Round) -> None:
        self.rounding = rounding

    def __call__(self, layer: nn.Module, arguments: tuple) -> tuple:
        return _StraightThrough.apply(arguments[0], self.rounding), *arguments[1:]


class _GradientHook:
    def __init__(self, rounding: _Round) -> None:
        self.rounding = rounding

    def __call__(self, layer: nn.Module, arguments: tuple, result: Tensor) -> Tensor:
        return _RoundGradient.apply(result, self.rounding)

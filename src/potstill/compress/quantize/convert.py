"""Conversion of a model to one with quantization-aware layers."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from potstill.compress.quantize.fake import QuantConv2d, QuantLinear, StepQuantizer
from potstill.compress.quantize.observe import Histogram
from potstill.compress.quantize.ranges import ActivationMethod, WeightMethod, activation_grid, weight_steps
from potstill.errors import ConfigError, did_you_mean
from potstill.models.inspect.dataflow import replaced
from potstill.models.inspect.plain_layers import other_layers, plain_layers
from potstill.progress import note


def quantized(
    model: nn.Module,
    observed: Mapping[str, Histogram],
    *,
    weight_bits: int = 8,
    activation_bits: int | None = 8,
    first_last_bits: int | None = 8,
    layer_bits: Mapping[str, int] | None = None,
    weight_method: WeightMethod = "absmax",
    activation_method: ActivationMethod = "minmax",
    skip: Collection[str] = (),
) -> nn.Module:
    """Return a copy of `model` whose plain convolutions and linear layers quantize their weights and inputs.

    The copy is calibrated (post-training quantization) and trainable (quantization-aware training). Fold BatchNorm
    first (`fold_batchnorm`).

    Args:
        observed: the histograms from `observe` on this model.
        weight_bits: 2 to 8, symmetric, one step per output channel.
        activation_bits: 2 to 8, one step and zero point per layer input; None keeps activations in float.
        first_last_bits: bits of weights and inputs of the first and last layer; None treats them like the others.
        layer_bits: weight bits of individual layers by path; they take precedence (mixed precision).
        skip: paths of layers that stay in float.

    Raises:
        ConfigError: bits out of range, or an unknown method or layer.
    """
    layer_bits = dict(layer_bits or {})
    _check_bits(weight_bits, activation_bits, first_last_bits, layer_bits)
    _check_methods(weight_method, activation_method)
    layers = plain_layers(model)
    _check_names([*layer_bits, *skip], layers)
    order = list(observed)
    ends = {order[0], order[-1]} if first_last_bits else set()
    for name, kind in other_layers(model).items():
        note(f"The layer {name} ({kind}) is not a plain convolution or linear layer and stays in float.")
    model = copy.deepcopy(model)
    new = {}
    for name, layer in plain_layers(model).items():
        if name not in observed:
            note(f"The layer {name} did not run during calibration and stays in float.")
        elif name not in skip:
            end_bits = first_last_bits if name in ends else None
            weight = _weight_quantizer(layer.weight, layer_bits.get(name, end_bits or weight_bits), weight_method)
            bits = activation_bits and (end_bits or activation_bits)
            inputs = _input_quantizer(observed[name], bits, activation_method, layer.weight) if bits else None
            new[layer] = _quantization_aware(layer, weight, inputs)
    return _exchanged(model, new)


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a float model with the quantizers and values of `state`, the state dict of a quantized model.

    The float model must have the structure that `quantized` was applied to: with BatchNorm folded if it was folded.
    """
    model = copy.deepcopy(model)
    new = {}
    for name, layer in plain_layers(model).items():
        start = f"{name}." if name else ""
        weight, inputs = (_from_state(state, f"{start}{part}_quantizer.") for part in ("weight", "input"))
        if weight is not None:
            new[layer] = _quantization_aware(layer, weight, inputs)
    model = _exchanged(model, new)
    model.load_state_dict(dict(state))
    return model


def _exchanged(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Replace each old layer by the new one at all of its paths; shared layers stay shared."""
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if layer in new:
            model = replaced(model, name, new[layer])
    return model


def _from_state(state: Mapping[str, Tensor], start: str) -> StepQuantizer | None:
    if f"{start}step" not in state:
        return None
    return StepQuantizer(state[f"{start}step"], *state[f"{start}codes"].tolist())


def _quantization_aware(layer: nn.Conv2d | nn.Linear, weight: StepQuantizer, inputs: StepQuantizer | None) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return QuantLinear(layer, weight, inputs)
    return QuantConv2d(layer, weight, inputs, same=type(layer) is not nn.Conv2d)


def _weight_quantizer(weight: Tensor, bits: int, method: WeightMethod) -> StepQuantizer:
    return StepQuantizer(weight_steps(weight, bits, method), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _input_quantizer(seen: Histogram, bits: int, method: ActivationMethod, like: Tensor) -> StepQuantizer:
    step, lowest = activation_grid(seen, bits, method)
    return StepQuantizer(torch.tensor(step, device=like.device), lowest, lowest + 2**bits - 1)


def _check_bits(weights: int, activations: int | None, ends: int | None, layers: Mapping[str, int]) -> None:
    settings = {"weight_bits": weights, "activation_bits": activations, "first_last_bits": ends}
    settings |= {f"layer_bits of {name}": bits for name, bits in layers.items()}
    wrong = {key: bits for key, bits in settings.items() if bits is not None and not 2 <= bits <= 8}
    if wrong:
        raise ConfigError(*(f"{key} must be 2 to 8, but is {bits}." for key, bits in wrong.items()))


def _check_methods(weights: str, activations: str) -> None:
    problems = []
    for key, value, kind in [
        ("weight_method", weights, WeightMethod),
        ("activation_method", activations, ActivationMethod),
    ]:
        if value not in get_args(kind):
            near = did_you_mean(value, get_args(kind))
            problems.append(f"{key} must be one of {', '.join(get_args(kind))}, not '{value}'.{near}")
    if problems:
        raise ConfigError(*problems)


def _check_names(names: Collection[str], layers: Mapping[str, nn.Module]) -> None:
    unknown = [name for name in names if name not in layers]
    if unknown:
        raise ConfigError(
            *(f"The model has no layer '{name}' that can be quantized.{did_you_mean(name, layers)}" for name in unknown)
        )

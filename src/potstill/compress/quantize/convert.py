"""A model in, the same model with quantization-aware layers out."""

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

    The copy is calibrated (post-training quantization) and trainable (quantization-aware training): train it like
    any model. Fold BatchNorm first (`fold_batchnorm`).

    Args:
        observed: what `observe` saw on this model.
        weight_bits: 2 to 8, symmetric, a step for each output channel.
        activation_bits: 2 to 8, a step and zero point for each layer's input; None leaves activations in float.
        first_last_bits: bits of the first and last layer that run, weights and inputs; None treats them as the others.
        layer_bits: weight bits of single layers by path, before everything else (mixed precision).
        skip: paths of layers that stay in float.

    Raises:
        ConfigError: bits out of range, a method or a layer that does not exist.
    """
    layer_bits = dict(layer_bits or {})
    _check_bits(weight_bits, activation_bits, first_last_bits, layer_bits)
    _check_methods(weight_method, activation_method)
    layers = plain_layers(model)
    _check_names([*layer_bits, *skip], layers)
    ends = {next(iter(observed)), next(reversed(observed))} if first_last_bits else set()
    for name, kind in other_layers(model).items():
        note(f"The layer {name} ({kind}) computes with more than its weight and bias and stays in float.")
    model = copy.deepcopy(model)
    new = {}
    for name, layer in plain_layers(model).items():
        if name not in observed:
            note(f"The layer {name} did not run during calibration and stays in float.")
        elif name not in skip:
            bits = layer_bits.get(name, first_last_bits if name in ends else weight_bits)
            weight = _weight_quantizer(layer.weight, bits, weight_method)
            bits = activation_bits and (first_last_bits if name in ends else activation_bits)
            given = _input_quantizer(observed[name], bits, activation_method, layer.weight) if bits else None
            new[layer] = _quantization_aware(layer, weight, given)
    return _exchanged(model, new)


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a float model, made quantization-aware as `state` (of such a model) is, with its values.

    The float model has the structure from which `quantized` started: with BatchNorm folded if it was folded then.
    """
    model = copy.deepcopy(model)
    new = {}
    for name, layer in plain_layers(model).items():
        start = f"{name}." if name else ""
        weight, given = (_from_state(state, f"{start}{part}_quantizer.") for part in ("weight", "input"))
        if weight is not None:
            new[layer] = _quantization_aware(layer, weight, given)
    model = _exchanged(model, new)
    model.load_state_dict(dict(state))
    return model


def _exchanged(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put each new layer wherever the old one stands; a layer that is shared stays shared."""
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if layer in new:
            model = replaced(model, name, new[layer])
    return model


def _from_state(state: Mapping[str, Tensor], start: str) -> StepQuantizer | None:
    if f"{start}step" not in state:
        return None
    return StepQuantizer(state[f"{start}step"], *state[f"{start}codes"].tolist())


def _quantization_aware(layer: nn.Module, weight: StepQuantizer, given: StepQuantizer | None) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return QuantLinear(layer, weight, given)
    return QuantConv2d(layer, weight, given, same=type(layer) is not nn.Conv2d)


def _weight_quantizer(weight: Tensor, bits: int, method: WeightMethod) -> StepQuantizer:
    return StepQuantizer(weight_steps(weight, bits, method), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _input_quantizer(seen: Histogram, bits: int, method: ActivationMethod, like: Tensor) -> StepQuantizer:
    step, lowest = activation_grid(seen, bits, method)
    return StepQuantizer(torch.tensor(step, device=like.device), lowest, lowest + 2**bits - 1)


def _check_bits(weights: int, activations: int | None, ends: int | None, layers: Mapping[str, int]) -> None:
    given = {"weight_bits": weights, "activation_bits": activations, "first_last_bits": ends}
    given |= {f"layer_bits of {name}": bits for name, bits in layers.items()}
    wrong = {key: bits for key, bits in given.items() if bits is not None and not 2 <= bits <= 8}
    if wrong:
        raise ConfigError(*(f"{key} is {bits}, but it must be 2 to 8." for key, bits in wrong.items()))


def _check_methods(weights: str, activations: str) -> None:
    problems = []
    for key, value, kind in [
        ("weight_method", weights, WeightMethod),
        ("activation_method", activations, ActivationMethod),
    ]:
        if value not in get_args(kind):
            near = did_you_mean(value, get_args(kind))
            problems.append(f"{key} is one of {', '.join(get_args(kind))}, not '{value}'.{near}")
    if problems:
        raise ConfigError(*problems)


def _check_names(names: Collection[str], layers: Mapping[str, nn.Module]) -> None:
    unknown = [name for name in names if name not in layers]
    if unknown:
        raise ConfigError(
            *(f"The model has no layer '{name}' that can be quantized.{did_you_mean(name, layers)}" for name in unknown)
        )

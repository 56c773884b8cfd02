"""Removing channels from layers, and resizing a network to the shapes of a pruned state dict."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.compress.prune.groups import Group


def keep_channels(model: nn.Module, group: Group, kept: Tensor) -> None:
    """Keep only the channels `kept` (sorted indices) of a group in all layers that have them."""
    for name in group.writers:
        _keep_outputs(_layer(model, name), kept)
    for name in group.carriers:
        _keep_both(model.get_submodule(name), kept)
    for name, repeat in group.readers.items():
        _keep_inputs(_layer(model, name), kept, group.channels, repeat)


def _layer(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear), type(layer)
    return layer


def _keep_outputs(layer: nn.Conv2d | nn.Linear, kept: Tensor) -> None:
    _cut(layer, "weight", layer.weight[kept])
    if layer.bias is not None:
        _cut(layer, "bias", layer.bias[kept])
    _name_sizes(layer)


def _keep_both(layer: nn.Module, kept: Tensor) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.groups = len(kept)
        _keep_outputs(layer, kept)
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(layer, name)
        if value is not None:
            _cut(layer, name, value[kept])
    assert isinstance(layer, _BatchNorm), type(layer)
    layer.num_features = len(kept)


def _keep_inputs(layer: nn.Conv2d | nn.Linear, kept: Tensor, channels: int, repeat: int) -> None:
    if isinstance(layer, nn.Linear):
        columns = kept[:, None] * repeat + torch.arange(repeat, device=kept.device)
        _cut(layer, "weight", layer.weight[:, columns.flatten()])
    else:
        size = channels // layer.groups
        parts = layer.weight.chunk(layer.groups)
        own = [kept[(kept >= i * size) & (kept < (i + 1) * size)] - i * size for i in range(layer.groups)]
        _cut(layer, "weight", torch.cat([part[:, inputs] for part, inputs in zip(parts, own, strict=True)]))
    _name_sizes(layer)


def _cut(layer: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(layer, name)
    value = value.detach().clone()
    setattr(layer, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)


def _name_sizes(layer: nn.Conv2d | nn.Linear) -> None:
    """Set the size attributes of a layer from its weight."""
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = outputs, inputs
    else:
        layer.out_channels, layer.in_channels = outputs, inputs * layer.groups


def resized(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of an unpruned model with the widths and values of `state`, the state dict of a pruned model."""
    model = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, _BatchNorm)):
            _resize(layer, state, f"{name}." if name else "")
    model.load_state_dict(dict(state))
    return model


def _resize(layer: nn.Conv2d | nn.Linear | _BatchNorm, state: Mapping[str, Tensor], start: str) -> None:
    own = {name: value for name, value in layer.state_dict().items() if value.shape != state[start + name].shape}
    for name in own:
        _cut(layer, name, state[start + name].to(own[name]))
    if isinstance(layer, _BatchNorm):
        layer.num_features = state[start + "running_mean"].shape[0] if own else layer.num_features
    elif own:
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1:
            layer.groups = len(layer.weight)
        _name_sizes(layer)

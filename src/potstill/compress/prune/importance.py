"""Importance scores of channels: one number per channel of a group, larger is more important."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.compress.prune.groups import Group
from potstill.errors import ModelError

Importance = Literal["l1", "l2", "bn", "taylor"]


def scores(model: nn.Module, group: Group, importance: Importance) -> Tensor:
    """Return the importance of each channel, shape [C], not negative.

    "l1" and "l2" are norms of the weights that produce a channel (arXiv:1608.08710); "bn" is the magnitude of its
    BatchNorm gains (arXiv:1708.06519); "taylor" the squared sum of parameter times gradient, a first-order estimate
    of the change of the loss when it is removed (arXiv:1906.10771), from the gradients stored in `model`.
    """
    return IMPORTANCE[importance](model, group).detach()


def _filters(model: nn.Module, group: Group) -> list[Tensor]:
    return [cast(Tensor, model.get_submodule(name).weight).flatten(1) for name in group.writers]


def _l1(model: nn.Module, group: Group) -> Tensor:
    return torch.stack([weight.abs().sum(1) for weight in _filters(model, group)]).sum(0)


def _l2(model: nn.Module, group: Group) -> Tensor:
    return torch.stack([weight.square().sum(1) for weight in _filters(model, group)]).sum(0).sqrt()


def _bn(model: nn.Module, group: Group) -> Tensor:
    layers = [model.get_submodule(name) for name in group.carriers]
    gains = [cast(Tensor, layer.weight).abs() for layer in layers if _has_gain(layer)]
    if not gains:
        raise ModelError(
            f"The channels of {group.writers[0]} have no BatchNorm with a gain, so importance 'bn' is undefined for "
            "them. Use importance 'l1' or 'l2'."
        )
    return torch.stack(gains).sum(0)


def _taylor(model: nn.Module, group: Group) -> Tensor:
    """Use the BatchNorm parameters if there are any: before a BatchNorm, weight times gradient sums to zero."""
    norms = [name for name in group.carriers if _has_gain(model.get_submodule(name))]
    changes = [_first_order(name, model.get_submodule(name)) for name in norms or group.writers]
    return torch.stack(changes).square().sum(0)


def _first_order(name: str, layer: nn.Module) -> Tensor:
    parameters = [cast(Tensor, p) for p in (layer.weight, layer.bias) if p is not None]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if len(gradients) < len(parameters):
        raise ModelError(
            f"Importance 'taylor' needs gradients, and {name} has none. Call backward() on the loss of a few batches "
            "first, or use importance 'l1' or 'l2'."
        )
    products = [p * gradient for p, gradient in zip(parameters, gradients, strict=True)]
    return cast(Tensor, sum(product.view(len(product), -1).sum(1) for product in products))


def _has_gain(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.affine


IMPORTANCE: dict[str, Callable[[nn.Module, Group], Tensor]] = {"l1": _l1, "l2": _l2, "bn": _bn, "taylor": _taylor}

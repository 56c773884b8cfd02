"""Layers that compute exactly `weight * x + bias`.

A subclass of a convolution may transform its weight (by weight standardisation, for example), and then folding into it
or quantizing it would silently change the model. So only the exact types listed here count as plain.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

Plain = nn.Conv2d | nn.Linear


def plain_types() -> tuple[type[nn.Module], ...]:
    """Return the types of convolution and linear layers whose forward uses weight and bias unchanged."""
    # Imported here, because timm takes seconds to import; it re-exports these names.
    from timm.layers import Conv2dSame  # pyright: ignore[reportPrivateImportUsage]
    from timm.layers import Linear as TimmLinear  # pyright: ignore[reportPrivateImportUsage]

    return (nn.Conv2d, Conv2dSame, nn.Linear, TimmLinear)


def plain_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the plain layers of a model by path."""
    types = plain_types()
    return {name: cast(Plain, module) for name, module in model.named_modules() if type(module) in types}


def depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution of every channel by itself."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels


def has_depthwise(model: nn.Module) -> bool:
    """Whether a model has depthwise convolutions."""
    return any(depthwise(layer) for layer in model.modules())


def other_layers(model: nn.Module) -> dict[str, str]:
    """Return path and type of convolutions and linear layers that are not plain."""
    types = plain_types()
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, weighted)}
    return {name: type(module).__name__ for name, module in layers.items() if type(module) not in types}


def settle_weights(model: nn.Module) -> None:
    """Replace every parametrized weight by its current value, in place.

    `parametrize.remove_parametrizations` would change the class object, which copies of the layer share.
    """
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            weight = nn.Parameter(cast(Tensor, layer.weight).detach().clone())
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            layer.weight = weight

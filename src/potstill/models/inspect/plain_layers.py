"""Which layers compute nothing but `weight * x + bias`.

A subclass of a convolution may do something else with its weight (standardise it, say), and then folding into it or
quantizing it would silently change the model. So exact types count, and those known to be plain are listed here.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize


def plain_types() -> tuple[type[nn.Module], ...]:
    """Return the types of convolution and linear layers whose forward uses weight and bias as they are."""
    from timm.layers import Conv2dSame  # timm takes seconds to import
    from timm.layers import Linear as TimmLinear

    return (nn.Conv2d, Conv2dSame, nn.Linear, TimmLinear)


def plain_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the plain layers of a model by path."""
    types = plain_types()
    return {name: module for name, module in model.named_modules() if type(module) in types}


def other_layers(model: nn.Module) -> dict[str, str]:
    """Return path and type of convolutions and linear layers that are not plain."""
    types = plain_types()
    weighted = (nn.modules.conv._ConvNd, nn.Linear)
    found = {name: module for name, module in model.named_modules() if isinstance(module, weighted)}
    return {name: type(module).__name__ for name, module in found.items() if type(module) not in types}


def settle_weights(model: nn.Module) -> None:
    """Replace every parametrized weight by its present value, in place.

    `parametrize.remove_parametrizations` would change the class of the layer, which copies of the layer share.
    """
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            weight = nn.Parameter(layer.weight.detach().clone())
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            layer.weight = weight

"""The methods that quantization chooses for a network, and what they keep of a network with depthwise layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from potstill import config
from potstill.stages.compress.quantize_config import Methods, QuantizeConfig
from tests.compress.nets import OptionAResNet, separable


def methods(network: nn.Module, **settings: Any) -> Methods:
    return config.build(QuantizeConfig, {"model": "m", "data": {"path": "digits"}, **settings}).methods(network)


@pytest.mark.parametrize(
    ("settings", "residual", "depthwise"),
    [
        ({}, ("nearest", "absmax", False, False), ("nearest", "absmax", True, False)),
        ({"weight_bits": 4}, ("reconstruct", "mse", False, False), ("reconstruct", "mse", False, True)),
        ({"max_bytes": 10_000}, ("reconstruct", "absmax", False, False), ("reconstruct", "absmax", False, True)),
        ({"rounding": "nearest"}, ("nearest", "absmax", False, False), ("nearest", "absmax", True, False)),
        ({"mode": "qat"}, ("nearest", "absmax", False, False), ("nearest", "absmax", True, False)),
        ({"mode": "qat", "weight_bits": 2}, ("nearest", "lsq", True, False), ("nearest", "lsq", True, False)),
        ({"activation_bits": 4}, ("nearest", "absmax", False, True), ("reconstruct", "absmax", False, True)),
        ({"activation_bits": None}, ("nearest", "absmax", False, False), ("nearest", "absmax", True, False)),
        (
            {"correct_bias": True, "weight_bits": 3},
            ("reconstruct", "mse", True, False),
            ("reconstruct", "mse", True, True),
        ),
    ],
)
def test_what_auto_stands_for(settings: dict[str, Any], residual: tuple, depthwise: tuple) -> None:
    with torch.random.fork_rng():
        networks = OptionAResNet(), separable()
    for network, wanted in zip(networks, (residual, depthwise), strict=True):
        found = methods(network, **settings)
        assert (found.rounding, found.weight_steps, found.correct_bias, found.learn_activations) == wanted

"""The optimizer, and the moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from potstill.training.settings import TrainConfig

FUSED = ("cpu", "cuda")


def optimizer(
    parameters: Sequence[Tensor], config: TrainConfig, own: Sequence[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Return the optimizer, fused if torch supports it; norms and biases are not decayed.

    own: parameter groups with other settings, used as they are.
    """
    grouped = {id(parameter) for group in own for parameter in group["params"]}
    left = [parameter for parameter in parameters if id(parameter) not in grouped]
    groups = [
        *own,
        {"params": [p for p in left if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in left if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(parameter.device.type in FUSED for parameter in parameters)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)


class Average:
    """An exponential moving average of a module's weights and running statistics (Polyak and Juditsky 1992).

    decay: factor of the old average at each step, 0..1; in the first steps at most (1 + step) / (10 + step), so that
    the initialisation has no weight.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._names, self._live = zip(*_floating(module).items(), strict=True)
        self._average = [tensor.clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Update the average with the weights after `step` (counted from 0)."""
        new = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, list(self._live), new)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, with the names of the module's state dict."""
        return dict(zip(self._names, self._average, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the averages returned by `state_dict`."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])

    def apply(self) -> None:
        """Copy the averages into the module."""
        for live, average in zip(self._live, self._average, strict=True):
            live.copy_(average)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the module's weights by the averages inside the block."""
        kept = [tensor.clone() for tensor in self._live]
        self.apply()
        try:
            yield
        finally:
            for live, before in zip(self._live, kept, strict=True):
                live.copy_(before)


def _floating(module: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point tensors of a module's state dict, sharing memory, without autograd."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def floating_buffers(module: nn.Module) -> list[Tensor]:
    """Return the floating-point buffers of a module: running statistics."""
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]

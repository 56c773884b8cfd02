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
    """Return the optimizer, fused into one pass where torch can; norms and biases are not decayed.

    own: groups of some of the parameters, taken as they are.
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

    decay: the part that stays at each step, 0..1; in the first steps it is less, (1 + step) / (10 + step), so that
    the average does not remember the initialisation.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._names, self._live = zip(*_floating(module).items(), strict=True)
        self._average = [tensor.clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Move towards the weights after `step` (from 0) was made."""
        new = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, list(self._live), new)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by the names of the module's state."""
        return dict(zip(self._names, self._average, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])

    def apply(self) -> None:
        """Put the averages into the module."""
        for live, average in zip(self._live, self._average, strict=True):
            live.copy_(average)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the module inside the block."""
        kept = [tensor.clone() for tensor in self._live]
        self.apply()
        try:
            yield
        finally:
            for live, before in zip(self._live, kept, strict=True):
                live.copy_(before)


def _floating(module: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point tensors of a module's state, sharing its memory and out of reach of autograd."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def floating_buffers(module: nn.Module) -> list[Tensor]:
    """Return the floating-point buffers of a module: running statistics."""
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]

"""Freezing of modules, including BatchNorm statistics, and the digest that verifies it.

With `requires_grad = False` alone BatchNorm still updates its running statistics in every training step, and every
`.train()` call undoes an earlier `.eval()`. Modules frozen here stay in eval mode.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable

import torch
from torch import nn


def bits(module: nn.Module, *, but: str | None = None) -> str:
    """Return the sha256 over all parameters and buffers with name, dtype and shape: equal only if no bit differs.

    but: the path of a submodule to leave out, such as a head.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    return _digest((name, tensor) for name, tensor in named if but is None or not name.startswith(f"{but}."))


def frozen_bits(network: nn.Module) -> str:
    """Return the sha256 over everything frozen: parameters without gradient, buffers of modules held in eval mode."""
    frozen: list[tuple[str, torch.Tensor]] = [
        (name, p) for name, p in network.named_parameters() if not p.requires_grad
    ]
    for path, module in network.named_modules():
        if is_pinned(module):
            frozen += [(f"{path}.{name}", buffer) for name, buffer in module.named_buffers(recurse=False)]
    return _digest(frozen)


def _digest(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def freeze(network: nn.Module, paths: Iterable[str]) -> None:
    """Freeze the modules at `paths`: no gradients, and eval mode after every later `.train()` call.

    "" freezes the whole network. Freezing is part of the network object: a deep copy is frozen too; a state dict does
    not hold it.
    """
    for path in paths:
        network.get_submodule(path).requires_grad_(False)
        for module in network.get_submodule(path).modules():
            _pin(module)


def unfreeze(network: nn.Module) -> None:
    """Make everything trainable again, in the mode of the network itself."""
    network.requires_grad_(True)
    for module in network.modules():
        module.__dict__.pop("train", None)
    network.train(network.training)


def freeze_except(network: nn.Module, paths: Iterable[str]) -> None:
    """Freeze everything except the modules at `paths`, including parameters outside of any of these modules."""
    trainable = tuple(paths)
    network.requires_grad_(False)
    for path in trainable:
        network.get_submodule(path).requires_grad_(True)
    for name, module in network.named_modules():
        if not any(_related(name, path) for path in trainable):
            _pin(module)


def hold_statistics(network: nn.Module) -> None:
    """Keep every BatchNorm in eval mode after later `.train()` calls; its scale and shift stay trainable."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _pin(module)


def is_pinned(module: nn.Module) -> bool:
    """Whether a module stays in eval mode after `.train()` calls."""
    return "train" in module.__dict__


def _related(name: str, path: str) -> bool:
    """Whether a module is the one at `path`, inside it or around it."""
    inside = name == path or name.startswith(f"{path}.") or path == ""
    return inside or name == "" or path.startswith(f"{name}.")


def _pin(module: nn.Module) -> None:
    module.eval()
    module.train = types.MethodType(_stay, module)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    # Bound to its module, so that a deep copy binds it to the copy.
    return module

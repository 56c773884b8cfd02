"""Pruning with the optional library torch-pruning, which also prunes residual sums and concatenations."""

from __future__ import annotations

import copy
import warnings
from typing import Literal

from torch import Tensor, nn

from potstill.errors import ConfigError, ModelError
from potstill.models.inspect.dataflow import trace
from potstill.models.inspect.macs import cost
from potstill.progress import note

STEPS = 50
LEAST_CHANNELS = 0.05  # of a layer


def all_channels(
    model: nn.Module,
    image: Tensor,
    *,
    keep: float,
    importance: Literal["l1", "l2"] = "l1",
    round_to: int = 1,
) -> nn.Module:
    """Return a copy of `model` pruned by torch-pruning (arXiv:2301.12900) to the fraction `keep` of its MACs.

    Unlike `inner_channels`, this also removes channels of residual sums, but does not support shortcuts that pad
    channels with zeros: such models raise an error. Layers whose outputs the model returns keep all channels.

    Raises:
        ConfigError: `keep` out of range.
        ModelError: torch-pruning is not installed, or its result does not run or is still too large.
    """
    if not 0 < keep < 1:
        raise ConfigError(f"keep must be between 0 and 1 (the fraction of the MACs to keep), but is {keep:g}.")
    library = _library()
    model = copy.deepcopy(model).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pruned = _pruned(library, model, image, keep, importance, round_to)
    for warning in caught:
        note(f"torch-pruning: {warning.message}")
    return pruned


def _pruned(library, model: nn.Module, image: Tensor, keep: float, importance: str, round_to: int) -> nn.Module:
    pruner = library.pruner.BasePruner(
        model,
        image,
        importance=library.importance.MagnitudeImportance(p=1 if importance == "l1" else 2),
        pruning_ratio=1 - LEAST_CHANNELS,
        iterative_steps=STEPS,
        ignored_layers=_last_layers(model, image),
        round_to=round_to,
    )
    whole = cost(model, image).total_macs
    for _ in range(STEPS):
        pruner.step()
        if _macs(model, image) <= keep * whole:
            return model
    raise ModelError(f"torch-pruning could not reduce {type(model).__name__} to {keep:.0%} of its MACs.")


def _library():
    try:
        import torch_pruning
    except ImportError:
        raise ModelError(
            "Pruning residual channels needs the library torch-pruning, which is not installed. Type "
            "`pip install torch-pruning` (extra potstill[prune]), or prune inner channels only (--structure inner), "
            "which needs no library."
        ) from None
    return torch_pruning


def _last_layers(model: nn.Module, image: Tensor) -> list[nn.Module]:
    """Return the layers that produce the returned tensors without another layer in between."""
    seen = trace(model, image)
    open_tensors, layers = list(seen.returned), []
    while open_tensors:
        call = seen.maker(open_tensors.pop())
        if call is None:
            continue
        if isinstance(call.layer, (nn.Conv2d, nn.Linear)):
            layers.append(call.layer)
        else:
            open_tensors += call.inputs
    return layers


def _macs(model: nn.Module, image: Tensor) -> int:
    try:
        return cost(model, image).total_macs
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"After torch-pruning, {type(model).__name__} does not run ({reason}). Shortcuts that pad channels with "
            "zeros, and attention heads of a fixed size, are not supported; prune inner channels only."
        ) from error

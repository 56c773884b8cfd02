"""The optional library torch-pruning behind one function: it also narrows residual sums and concatenations."""

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
    """Return a copy of `model` pruned by torch-pruning (arXiv:2301.12900) to the share `keep` of its MACs.

    Unlike `inner_channels`, this also removes channels of residual sums, and it knows nothing of shortcuts that pad
    channels with zeros: such models end in an error. The layers whose outputs the model returns keep theirs.

    Raises:
        ConfigError: `keep` out of range.
        ModelError: torch-pruning is not installed, or what it made does not run or is still too large.
    """
    if not 0 < keep < 1:
        raise ConfigError(f"keep is {keep:g}, but it must lie between 0 and 1: the share of the MACs that remains.")
    library = _library()
    model = copy.deepcopy(model).eval()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pruned = _pruned(library, model, image, keep, importance, round_to)
    for warning in told:
        note(f"torch-pruning says: {warning.message}")
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
            "`pip install torch-pruning` (the extra potstill[prune]), or prune inner channels only, which needs no "
            "library: --structure inner."
        ) from None
    return torch_pruning


def _last_layers(model: nn.Module, image: Tensor) -> list[nn.Module]:
    """Return the layers from which the returned tensors come without another layer in between."""
    seen = trace(model, image)
    open_tensors, found = list(seen.returned), []
    while open_tensors:
        call = seen.maker(open_tensors.pop())
        if call is None:
            continue
        if isinstance(call.layer, (nn.Conv2d, nn.Linear)):
            found.append(call.layer)
        else:
            open_tensors += call.inputs
    return found


def _macs(model: nn.Module, image: Tensor) -> int:
    try:
        return cost(model, image).total_macs
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"After torch-pruning, {type(model).__name__} does not run any more ({reason}). Shortcuts that pad "
            "channels with zeros and attention heads of a fixed size do this; prune inner channels only."
        ) from error

"""The state of an unfinished training, in one safetensors file that is written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from potstill.artifacts import atomic


def save(file: Path, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of named tensors and JSON facts."""
    flat = {f"{group}/{name}": value.contiguous() for group, named in tensors.items() for name, value in named.items()}
    metadata = {"facts": json.dumps(facts), "groups": json.dumps(list(tensors))}
    with atomic(file) as temporary:
        temporary.write_bytes(to_bytes(flat, metadata))


def load(file: Path, device: torch.device) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return what `save` wrote, with the tensors on `device`."""
    with safe_open(file, "pt", device=str(device)) as handle:
        metadata = handle.metadata()
        tensors: dict[str, dict[str, Tensor]] = {group: {} for group in json.loads(metadata["groups"])}
        for key in handle.keys():  # noqa: SIM118 (not a dict)
            group, _, name = key.partition("/")
            tensors[group][name] = handle.get_tensor(key)
    return tensors, json.loads(metadata["facts"])


def facts(file: Path) -> dict[str, Any] | None:
    """Return the JSON facts of a checkpoint without its tensors; None if there is no checkpoint."""
    if not file.is_file():
        return None
    with safe_open(file, "pt") as handle:
        return json.loads(handle.metadata()["facts"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of every parameter by "number.name"; all state of SGD and AdamW is tensors."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the tensors of `optimizer_tensors`, in the memory format of the parameters, as fused optimizers need."""
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        alike = value.shape == parameter.shape
        optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value) if alike else value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

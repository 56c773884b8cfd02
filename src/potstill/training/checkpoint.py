"""The state of an unfinished training, in one safetensors file that is written atomically.

It has the inputs of its stage, so that a training is never resumed on other images, and a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from potstill import artifacts, distributed
from potstill.errors import RunError


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: groups of named tensors, and JSON facts."""

    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(file: Path, tensors: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of named tensors and JSON facts, and the inputs of the stage that works in the folder."""
    flat = {f"{group}/{name}": value.contiguous() for group, named in tensors.items() for name, value in named.items()}
    metadata = {
        "facts": json.dumps(facts),
        "groups": json.dumps(list(tensors)),
        "inputs": json.dumps(artifacts.inputs_of(file.parent)),
    }
    metadata["sha256"] = digest(flat, metadata)
    with artifacts.atomic(file) as temporary:
        temporary.write_bytes(to_bytes(flat, metadata))


def load(file: Path, device: torch.device) -> State | None:
    """Return what `save` wrote, with the tensors on `device`; None if there is no whole checkpoint.

    A damaged one is set aside with a note. All processes must call it. Raises `RunError` if it belongs to other inputs.
    """
    if not file.is_file():
        distributed.wait()
        return None
    read = _read(file)
    distributed.wait()  # every rank has read the file before rank 0 sets it aside
    if read is None:
        if distributed.is_main():
            artifacts.set_aside(file.parent, {file.name: "is truncated or has a wrong checksum"})
        return None
    flat, metadata = read
    _check_inputs(file, json.loads(metadata["inputs"]))
    tensors: dict[str, dict[str, Tensor]] = {group: {} for group in json.loads(metadata["groups"])}
    for key, value in flat.items():
        group, _, name = key.partition("/")
        tensors[group][name] = value.to(device)
    return State(tensors, json.loads(metadata["facts"]))


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return tensors and metadata of a checkpoint, None if they are not as they were written."""
    try:
        with safe_open(file, "pt") as handle:
            metadata = dict(handle.metadata() or {})
            flat = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError):
        return None
    recorded = metadata.pop("sha256", "")
    return (flat, metadata) if digest(flat, metadata) == recorded else None


def _check_inputs(file: Path, made: dict[str, Any]) -> None:
    different = artifacts.differing(made, artifacts.inputs_of(file.parent))
    if different:
        raise RunError(
            f"{file} is the checkpoint of a training with another {different}, so it cannot be resumed. Choose a new "
            f"folder with --out, or remove {file} to train from the start."
        )


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of tensors (names, types, shapes, bytes) and metadata."""
    sha256 = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha256.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def computed_before(folder: Path) -> dict[str, Any] | None:
    """Return how a training was computed whose damaged result was set aside, to compute it again in the same way."""
    file = folder / f"{artifacts.MANIFEST}{artifacts.DAMAGED}"
    try:
        return artifacts.read_json(file).get("computed") if file.is_file() else None
    except (RunError, AttributeError):
        return None


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
    optimizer.state.clear()
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        alike = value.shape == parameter.shape
        optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value) if alike else value.clone()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

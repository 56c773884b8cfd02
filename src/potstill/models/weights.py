"""Reading files of weights without executing code in them, and comparing them with a network.

A wrong file is the most common mistake with a teacher, so each kind of problem has its own error message.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.models.checkpoints import damaged, read_checkpoint
from potstill.models.hooks import extra_tokens
from potstill.progress import note

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".th", ".tar", ".ckpt", ".pkl", ".pyth")

State = dict[str, Tensor]
_WRAPPED = ("module.", "_orig_mod.")


def read_state(file: Path) -> State:
    """Return the tensors of a file by name; its suffix is one of `SUFFIXES`, in any case.

    Wrappers such as {"state_dict": ...} and the prefixes of torch's own wrappers are removed; half precision is
    converted to float32. Nothing in the file is executed. Raises `ModelError` for a file that is missing, damaged, or
    not weights.
    """
    present(file)
    state = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else read_checkpoint(file)
    _refuse_infinite(file, state)
    return {_strip(name): _widen(tensor) for name, tensor in state.items()}


def present(file: Path) -> Path:
    """Return the path of a file that may hold weights; raise `ModelError` if it does not."""
    if file.is_dir():
        raise ModelError(
            f"{file} is a folder. Give the file of weights in it; the folder of a stage is itself a model."
        )
    if not file.is_file():
        raise ModelError(f"There is no file {file}. Check the path of the weights.")
    if file.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{file} is not a file of weights: supported are {', '.join(SUFFIXES)}.")
    return file


def _refuse_infinite(file: Path, state: State) -> None:
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        kind = "NaN" if state[broken[0]].isnan().any() else "infinity"
        raise ModelError(
            f"{file} contains {kind}, first in '{broken[0]}' ({len(broken)} of {len(state)} tensors): its training "
            "diverged. Use an earlier checkpoint, or another file."
        )


def _read_safetensors(file: Path) -> State:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise damaged(file, str(error)) from None


def _strip(name: str) -> str:
    """Return a name without the prefixes of DataParallel and torch.compile, in any order."""
    while name.startswith(_WRAPPED):
        name = name.partition(".")[2]
    return name


def named_as(state: State, network: nn.Module, file: Path) -> State:
    """Return the state dict with the names of a network, if they are those in the file after one prefix.

    Lightning and self-supervised training save `model.conv1.weight`, `backbone.conv1.weight`. Other tensors in the file
    are then not the network's and are left out with a note.
    """
    own = network.state_dict().keys()
    if len(own & state.keys()) > len(own) / 2:
        return state
    prefixes = Counter(name.removesuffix(known) for name in state for known in _longest(own) if name.endswith(known))
    counted = {prefix: sum(prefix + name in state for name in own) for prefix in prefixes if prefix.endswith(".")}
    prefix = max(counted, key=lambda one: counted[one], default="")
    if counted.get(prefix, 0) <= len(own) / 2:
        return state
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    left = len(state) - len(inner)
    beside = f", and the {left} others are ignored" if left else ""
    note(f"{file.name}: the names of {len(inner)} tensors begin with '{prefix}', which was removed{beside}.")
    return inner


def _longest(names: Collection[str]) -> list[str]:
    """Return a few names that say most, so that they end no other name by chance."""
    return sorted(names, key=lambda name: (name.count("."), len(name)), reverse=True)[:8]


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Fit:
    """Comparison of a file with a network: names of tensors that are missing, unexpected or of another shape."""

    matching: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    head: tuple[str, ...]
    """Names whose shape differs only in the number of classes."""
    file_classes: int

    def holds(self, *, but: Collection[str] = ()) -> bool:
        """Whether all tensors match, except for the names in `but`."""
        wrong = {*self.missing, *self.unexpected, *self.reshaped, *self.head}
        return wrong <= set(but)


def fit(state: State, network: nn.Module, classes: int) -> Fit:
    """Compare a state dict with a network (which may be on the meta device) with `classes` outputs."""
    own = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    file = {k: tuple(v.shape) for k, v in state.items()}
    other = [k for k in own if k in file and own[k] != file[k]]
    head = [k for k in other if own[k][:1] == (classes,) and own[k][1:] == file[k][1:]]
    # Layers that differ in their first dimension by various numbers are another architecture, not another head.
    head = head if len({file[k][0] for k in head}) == 1 else []
    return Fit(
        matching=sum(file.get(k) == shape for k, shape in own.items()),
        missing=tuple(k for k in own if k not in file and not k.endswith("num_batches_tracked")),
        unexpected=tuple(k for k in file if k not in own),
        reshaped=tuple(k for k in other if k not in head),
        head=tuple(head),
        file_classes=file[head[0]][0] if head else classes,
    )


def head_names(network: nn.Module, names: Collection[str], classes: int) -> list[str]:
    """Return those of `names` that belong to a layer with one output per class."""
    own = network.state_dict()
    layers = {name.rpartition(".")[0] for name in names}
    heads = {layer for layer in layers if own.get(f"{layer}.weight", torch.empty(0)).shape[:1] == (classes,)}
    return [name for name in names if name.rpartition(".")[0] in heads]


def without_side_heads(state: State, network: nn.Module) -> State:
    """Return the state dict without the side heads in torchvision's weights of GoogLeNet and Inception."""
    own = network.state_dict()
    return {k: v for k, v in state.items() if k in own or not k.startswith(("aux1.", "aux2.", "AuxLogits."))}


def with_positions(state: State, network: nn.Module) -> State:
    """Return the state dict with the position embedding of a transformer resampled if the image size differs."""
    own, stored = network.state_dict().get("pos_embed"), state.get("pos_embed")
    if own is None or stored is None or own.shape == stored.shape or own.shape[-1] != stored.shape[-1]:
        return state
    from timm.layers import resample_abs_pos_embed  # pyright: ignore[reportPrivateImportUsage]  # timm re-exports it

    side, extra = math.isqrt(own.shape[1]), extra_tokens(own.shape[1])
    note(f"The position embedding of the weights was resampled to a grid of {side} x {side} tokens.")
    return {**state, "pos_embed": resample_abs_pos_embed(stored, [side, side], num_prefix_tokens=extra)}

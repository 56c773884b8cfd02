"""Weights whose tensors have other names than the network's, such as those of another library for the same network."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from potstill.models.weights import State, named_as, read_state, without_side_heads
from potstill.progress import note

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches, which inference does not use and some files leave out."""


def read_as(network: nn.Module, file: Path, classes: int) -> State:
    """Return the tensors of a file under the names of a network (which may be on the meta device), where they fit.

    A common prefix and side heads are removed; other names of the same tensors are found by position. Raises
    `ModelError` for a file that is missing, damaged, or not weights.
    """
    state = without_side_heads(named_as(read_state(file), network, file), network)
    return renamed(state, network, classes, file=file)


def renamed(state: State, network: nn.Module, classes: int, *, file: Path) -> State:
    """Return the state dict of a file under the network's names if it fits by position, else unchanged.

    It fits if, without the counters of BatchNorm, it has as many tensors as the network (which may be on the meta
    device, with `classes` outputs), and at every position the shapes are equal and so are the kinds of the names
    (weight, bias, running_mean, ...). A head may have another number of classes. Equal shapes in another order of
    meaning (keys before queries) cannot be recognised by shape, so a layer name that both have must be at the same
    positions in both. Safetensors files are sorted by name, so that their positions have no meaning.
    """
    if file.suffix == ".safetensors":
        return state
    own = _named(network.state_dict())
    other = _named(state)
    if list(own) == list(other) or not _alike(own, other, classes):
        return state
    note(
        f"{file.name} has other tensor names (first '{next(iter(other))}' for '{next(iter(own))}'). All {len(own)} "
        "tensors have the kinds and shapes of the network's, in the same order: they are loaded by position."
    )
    return dict(zip(own, other.values(), strict=True))


def _named(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}


def _alike(own: State, file: State, classes: int) -> bool:
    if len(own) != len(file) or not any(name not in own for name in file):
        return False
    same = all(_kind(a) == _kind(b) and _same_shape(own[a], file[b], classes) for a, b in zip(own, file, strict=True))
    return same and not _contradicting(list(own), list(file))


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _same_shape(own: Tensor, file: Tensor, classes: int) -> bool:
    return own.shape == file.shape or (own.shape[:1] == (classes,) and own.shape[1:] == file.shape[1:])


def _contradicting(own: list[str], file: list[str]) -> bool:
    """Whether a layer name of both is at different positions; numbers are no names."""
    ours, others = [_layer(name) for name in own], [_layer(name) for name in file]
    both = {name for name in set(ours) & set(others) if not name.isdigit()}
    return any(a != b and (a in both or b in both) for a, b in zip(ours, others, strict=True))


def _layer(name: str) -> str:
    return name.rpartition(".")[0].rpartition(".")[2]

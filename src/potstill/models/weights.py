"""Reading files of weights without executing code in them, and comparing them with a network.

A wrong file is the most common mistake with a teacher, so each kind of problem has its own error message.
"""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.models.hooks import extra_tokens
from potstill.progress import note

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".th", ".tar", ".ckpt")
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "params")
"""Keys under which training scripts store a state dict, in the order in which they are tried."""

State = dict[str, Tensor]


def read_state(file: Path) -> State:
    """Return the tensors of a file by name; its suffix is one of `SUFFIXES`.

    Wrappers such as {"state_dict": ...} and the prefix "module." are removed; half precision is converted to float32.
    Raises `ModelError` for a file that is missing, damaged, not weights, or that contains code.
    """
    present(file)
    state = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    _refuse_nan(file, state)
    return {_strip(name): _widen(tensor) for name, tensor in state.items()}


def present(file: Path) -> Path:
    """Return the path of a file that may hold weights; raise `ModelError` if it does not."""
    if file.is_dir():
        raise ModelError(f"{file} is a folder. Give the file of weights in it; the folder of a stage is a --model.")
    if not file.is_file():
        raise ModelError(f"There is no file {file}. Check the path of the weights.")
    if file.suffix not in SUFFIXES:
        raise ModelError(f"{file} is not a file of weights: supported are {', '.join(SUFFIXES)}.")
    return file


def _refuse_nan(file: Path, state: State) -> None:
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise ModelError(
            f"{file} contains NaN, first in '{broken[0]}' ({len(broken)} of {len(state)} tensors): its training "
            "diverged. Use an earlier checkpoint, or another file."
        )


def _read_safetensors(file: Path) -> State:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise _damaged(file, str(error)) from None


def _read_torch(file: Path) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns about newer pickles before it refuses them
            return _unwrap(torch.load(file, map_location="cpu", weights_only=True), file)
    except pickle.UnpicklingError:
        raise _not_plain(file) from None
    except (EOFError, OSError, RuntimeError) as error:
        raise _damaged(file, str(error).splitlines()[0] if str(error) else "unexpected end of file") from None


def _unwrap(loaded: object, file: Path) -> State:
    """Return the state dict inside a checkpoint of a training script."""
    while isinstance(loaded, dict):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            break
        loaded = inner
    tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, dict) else {}
    if not tensors:
        raise ModelError(f"{file} does not hold named tensors. Save `model.state_dict()` and use that file.")
    return tensors


def _strip(name: str) -> str:
    return name.removeprefix("module.")


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _damaged(file: Path, reason: str) -> ModelError:
    size = file.stat().st_size
    return ModelError(
        f"{file} ({size:,} bytes) is truncated or damaged: {reason.rstrip('.')}. Download or copy it again."
    )


def _not_plain(file: Path) -> ModelError:
    with file.open("rb") as handle:
        start = handle.read(2)
    if start[:1] != b"\x80" and start != b"PK":
        return _damaged(file, "it is not a file written by torch.save")
    return ModelError(
        f"{file} is a pickle that contains code, not only tensors; it was not opened, because loading it would run "
        "that code. Use a file with only the state dict, preferably .safetensors; convert it yourself if you trust "
        "the file."
    )


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

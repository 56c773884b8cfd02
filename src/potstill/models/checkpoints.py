"""Checkpoints of training scripts: whatever lies beside the tensors, they are read without executing anything.

`torch.load(weights_only=True)` refuses a file for one numpy scalar or `argparse.Namespace` beside its tensors. Such a
file is read again with an unpickler that knows only torch's tensors and puts an empty `Unknown` in place of every other
class, so none of its code runs; of a network that was saved as a whole the parameters and buffers are collected.
"""

from __future__ import annotations

import collections
import io
import pickle
import types
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._utils
from torch import Tensor

from potstill.errors import ModelError
from potstill.words import file_size

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "backbone")
"""Keys under which training scripts store a state dict, in the order in which they are tried."""
OTHERS = ("optim", "sched", "scaler", "ema", "loss", "criterion")
"""Parts of keys under which there are tensors, but not those of the network (or an average of them)."""
_DEPTH = 6
_TENSORS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
)
_EXPANSION = 2  # torch.save does not compress, so that an archive that unpacks to more is none of its files


class Unknown:
    """What stands for an object of a class that is not loaded: it takes everything, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Unknown:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> Unknown:
        return Unknown()

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, *_: Any) -> None:
        """Take an item of a list."""

    extend = add = update = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "collections" and global_name == "OrderedDict":
            return collections.OrderedDict
        if module_name == "torch._utils" and global_name in _TENSORS:
            return getattr(torch._utils, global_name)  # noqa: SLF001 (the names in a checkpoint)
        if module_name == "torch" and isinstance(found := getattr(torch, global_name, None), torch.dtype):
            return found
        if module_name == "torch" and global_name in ("Size", "device"):
            return getattr(torch, global_name)
        return Unknown


def _pickle_module() -> types.ModuleType:
    """Return a module with what torch.load uses of `pickle`."""
    module = types.ModuleType("potstill_plain_pickle")
    module.__dict__.update(
        Unpickler=_Unpickler,
        UnpicklingError=pickle.UnpicklingError,
        load=lambda file, **options: _Unpickler(file, **options).load(),
    )
    return module


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of `torch.save` by name; raise `ModelError` if it is damaged or holds none."""
    _refuse_archive(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns about newer pickles before it refuses them
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        loaded = _without_code(file)
    except Exception as error:  # torch's unpickler raises what its operations raise on damaged files
        raise damaged(file, str(error).splitlines()[0] if str(error) else "unexpected end of file") from None
    tensors = _named_tensors(loaded)
    if not tensors:
        raise ModelError(f"{file} does not hold named tensors. Save `model.state_dict()` and use that file.")
    return tensors


def _refuse_archive(file: Path) -> None:
    """Raise `ModelError` for TorchScript, and for a compressed archive, which could fill the memory."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:  # of damaged archives zipfile raises many kinds
        raise damaged(file, str(error)) from None
    unpacked, packed = sum(member.file_size for member in members), file.stat().st_size
    if unpacked > _EXPANSION * packed + 65_536:
        raise ModelError(
            f"{file} ({file_size(packed)}) unpacks to {file_size(unpacked)}, which torch.save never writes. It was not "
            "opened. Use a file of torch.save, or .safetensors."
        )
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ModelError(
            f'{file} is a TorchScript program, which is not executed. Save its tensors: python -c "import torch; '
            f"torch.save(torch.jit.load('{file}').state_dict(), 'weights.pth')\""
        )


def _without_code(file: Path) -> object:
    """Return the content with `Unknown` in place of other objects; refuse what only code could restore."""
    if not zipfile.is_zipfile(file):
        raise _not_plain(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=False, pickle_module=_pickle_module()
            )
    except Exception:  # an object whose class would have to be known
        raise _not_plain(file) from None


def _named_tensors(loaded: object, depth: int = 0) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint: under a usual key, else the largest that is not of an optimizer."""
    if isinstance(loaded, Unknown):
        return dict(_of_module(loaded))
    if isinstance(loaded, list) and all(isinstance(one, tuple) and len(one) == 2 for one in loaded):
        loaded = {name: value for name, value in loaded if isinstance(name, str)}
    if not isinstance(loaded, Mapping) or depth > _DEPTH:
        return {}
    for key in WRAPPERS:
        if not isinstance(loaded.get(key), Tensor) and (inner := _named_tensors(loaded.get(key), depth + 1)):
            return inner
    own = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if own:
        return own
    parts = [
        _named_tensors(value, depth + 1)
        for key, value in loaded.items()
        if not any(part in str(key).lower() for part in OTHERS)
    ]
    return max(parts, key=len, default={})


def _of_module(module: Unknown, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a network that was saved as a whole, by their names in its state dict."""
    state = module.state if isinstance(module.state, Mapping) else {}
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(state.get(kind)):
            if isinstance(value, Tensor):
                yield prefix + name, value.detach()
    for name, inner in _items(state.get("_modules")) if depth < 50 else ():
        if isinstance(inner, Unknown):
            yield from _of_module(inner, f"{prefix}{name}.", depth + 1)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, Mapping) else ()


def damaged(file: Path, reason: str) -> ModelError:
    """Return the error for a file that cannot be read, with what it is if that can be seen."""
    with file.open("rb") as handle:
        start = handle.read(512).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return ModelError(f"{file} is a pointer of Git LFS, not the file itself. In its repository, type: git lfs pull")
    if start.startswith((b"<!doctype", b"<html")):
        return ModelError(f"{file} is a web page, not a file of weights. Download the file itself.")
    size = file.stat().st_size
    return ModelError(
        f"{file} ({size:,} bytes) is truncated or damaged: {reason.rstrip('.')}. Download or copy it again."
    )


def _not_plain(file: Path) -> ModelError:
    with file.open("rb") as handle:
        start = handle.read(2)
    if start[:1] != b"\x80" and start != b"PK":
        return damaged(file, "it is not a file written by torch.save")
    return ModelError(
        f"{file} is a pickle that contains code, not only tensors; it was not opened, because loading it would run "
        "that code. Use a file with only the state dict, preferably .safetensors; convert it yourself if you trust "
        "the file."
    )

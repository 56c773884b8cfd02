"""The data flow of a forward pass: layers, and the operations between them.

Folding, equalizing and pruning need the data flow. It is recorded below autograd while the model runs on an example,
so it needs no tracing of Python code and works for any model; callers skip operations that they do not support.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS = (nn.Conv2d, nn.Linear, _BatchNorm)


@dataclass(frozen=True, eq=False)
class Call:
    """A layer or an operation that ran. Tensors are numbered; an in-place operation creates a new number."""

    name: str  # path of the layer, "" for an operation
    layer: nn.Module | None
    operation: str  # such as "aten.relu", "" for a layer
    function: Callable[..., Any]  # the layer, or the overload of the operation
    arguments: tuple  # of an operation: the last one holds its keyword arguments
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Trace:
    """One forward pass, in the order of execution. `image` is the number of the model's input."""

    calls: list[Call] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    given: set[int] = field(default_factory=set)  # inputs of the model, parameters, constants
    returned: set[int] = field(default_factory=set)
    image: int = 0

    def users(self, tensor: int) -> list[Call]:
        """Return the calls that read a tensor."""
        return [call for call in self.calls if tensor in call.inputs]

    def maker(self, tensor: int) -> Call | None:
        """Return the call that produced a tensor; None for inputs, parameters and constants."""
        return next((call for call in self.calls if tensor in call.outputs), None)

    def sole_user(self, tensor: int) -> Call | None:
        """Return the only call that reads a tensor; None if there are several or the model returns it."""
        users = self.users(tensor)
        return users[0] if len(users) == 1 and tensor not in self.returned else None

    def repeated(self) -> set[str]:
        """Return the names of layers that ran more than once."""
        return {name for name, count in Counter(call.name for call in self.calls if call.name).items() if count > 1}


def tensors_in(value: object) -> list[Tensor]:
    """Return the tensors in nested lists, tuples, mappings and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    if dataclasses.is_dataclass(value):
        return [tensor for f in dataclasses.fields(value) for tensor in tensors_in(getattr(value, f.name))]
    return []


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.depth = 0  # > 0 inside a layer, whose operations are not recorded
        self.numbers: dict[int, int] = {}
        self.alive: list[Tensor] = []  # an id() is unique only while its tensor exists

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self.depth == 0:
            self.record("", func, (*args, kwargs or {}), result)
        return result

    def record(self, name: str, function: Callable[..., Any], arguments: tuple, result: object) -> None:
        layer = function if isinstance(function, nn.Module) else None
        operation = "" if layer is not None else str(function).rpartition(".")[0]
        inputs = tuple(self.number(tensor) for tensor in tensors_in(arguments))
        outputs = tuple(self.fresh(tensor) for tensor in tensors_in(result))
        self.trace.calls.append(Call(name, layer, operation, function, arguments, inputs, outputs))

    def number(self, tensor: Tensor) -> int:
        if id(tensor) not in self.numbers:
            self.trace.given.add(self.fresh(tensor))
        return self.numbers[id(tensor)]

    def fresh(self, tensor: Tensor) -> int:
        self.alive.append(tensor)
        number = len(self.alive)
        self.numbers[id(tensor)] = number
        self.trace.shapes[number] = tuple(tensor.shape)
        return number


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, without gradients, and restore the mode of each module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def trace(model: nn.Module, image: Tensor) -> Trace:
    """Run `model` on `image` [B, C, H, W] in eval mode and return the trace. Two images are enough."""
    recorder = _Recorder()
    recorder.trace.image = recorder.number(image)

    def enter(layer: nn.Module, arguments: tuple) -> None:
        recorder.depth += 1

    def leave(name: str):
        def hook(layer: nn.Module, arguments: tuple, result: object) -> None:
            recorder.depth -= 1
            if recorder.depth == 0:
                recorder.record(name, layer, arguments, result)

        return hook

    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            hooks += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave(name))]
    try:
        with evaluating(model), recorder:
            result = model(image)
    finally:
        for hook in hooks:
            hook.remove()
    recorder.trace.returned = {recorder.number(tensor) for tensor in tensors_in(result)}
    return recorder.trace


def replaced(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put `module` at the path `name` and return the model (the module itself if the path is empty)."""
    if not name:
        return module
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
    return model

"""Parts of a network that can be run alone, found by its data flow: between two of them, a single tensor is passed on.

Such a tensor is the output of a residual block, or of any layer of a network without shortcuts. A part is run by
repeating the recorded operations, so it needs no module of its own and works for any network whose operations do not
depend on the values of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.models.inspect.dataflow import Call, Trace, evaluating, tensors_in, trace


@dataclass(frozen=True)
class Segment:
    """Consecutive calls that read the tensor number `start`, and otherwise only constants, and make `end`.

    The recorded operations may hold the batch size as a constant: a segment runs on batches of the traced size only.
    """

    calls: tuple[Call, ...]
    start: int
    end: int

    @property
    def layers(self) -> list[str]:
        """Paths of the convolutions, linear layers and BatchNorms, in the order of execution."""
        return [call.name for call in self.calls if call.layer is not None]

    def run(self, tensor: Tensor, layers: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Return the output for the input `tensor`; `layers`, by path, are used in place of the traced ones."""
        known = {self.start: tensor.clone()}  # an operation in place may overwrite it
        for call in self.calls:
            arguments, keywords = _filled(call, known)
            result = (layers or {}).get(call.name, call.function)(*arguments, **keywords)
            known |= zip(call.outputs, tensors_in(result), strict=True)
        return known[self.end]


def segments(
    model: nn.Module, image: Tensor, *, joined: Callable[[nn.Module], bool] = lambda layer: False
) -> list[Segment]:
    """Return the segments of a model from the image to its output; each has at least one layer.

    `image` [B, C, H, W] is a batch of the size that they will run on. Operations belong to the layer before them, and a
    segment whose layers are all `joined` to the following segment. The list is empty if the model returns several
    tensors or if the segments do not reproduce its output.
    """
    seen = trace(model, image)
    if len(seen.returned) != 1:
        return []
    found = _merged(_cut(seen), joined)
    return found if _same(found, model, image) else []


def _cut(seen: Trace) -> list[Segment]:
    """Divide the calls wherever exactly one tensor is needed later."""
    last = {seen.image: -1}
    for position, call in enumerate(seen.calls):
        last |= dict.fromkeys(call.inputs, position)
    last |= dict.fromkeys(seen.returned, len(seen.calls))
    found, start, first = [], seen.image, 0
    alive = {seen.image}
    for position, call in enumerate(seen.calls):
        alive = {tensor for tensor in alive | {*call.outputs} if last.get(tensor, -1) > position}
        if len(alive) == 1:
            (end,) = alive
            if end != start:
                found.append(Segment(tuple(seen.calls[first : position + 1]), start, end))
                start, first = end, position + 1
    return found


def _merged(parts: list[Segment], joined: Callable[[nn.Module], bool]) -> list[Segment]:
    """Give each segment a layer, and join those that belong to the following one."""
    found: list[Segment] = []
    for part in parts:
        if found and (not part.layers or _open(found[-1], joined)):
            found[-1] = Segment(found[-1].calls + part.calls, found[-1].start, part.end)
        else:
            found.append(part)
    return found


def _open(segment: Segment, joined: Callable[[nn.Module], bool]) -> bool:
    return all(joined(call.layer) for call in segment.calls if call.layer is not None)


def _same(parts: list[Segment], model: nn.Module, image: Tensor) -> bool:
    """Whether the segments, one after the other, compute what the model does."""
    with evaluating(model):
        (wanted,) = tensors_in(model(image))
        result = image.clone()
        try:
            for part in parts:
                result = part.run(result)
        except (RuntimeError, TypeError, KeyError, ValueError):  # an operation that cannot be repeated
            return False
    return result.shape == wanted.shape and torch.allclose(result, wanted, rtol=1e-3, atol=1e-4)


def _filled(call: Call, known: Mapping[int, Tensor]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call with the tensors of this run; constants are those that were recorded."""
    numbers = iter(call.inputs)

    def fill(value: Any) -> Any:
        if isinstance(value, Tensor):
            return known.get(next(numbers), value)
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [fill(item) for item in value]
        return value

    arguments = [fill(value) for value in call.arguments]
    return (arguments, {}) if call.layer is not None else (arguments[:-1], arguments[-1])

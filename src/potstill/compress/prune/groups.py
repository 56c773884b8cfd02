"""Groups of channels that must be pruned together.

Removing an output channel of a convolution also removes it from the following BatchNorm and depthwise convolution, and
from the input of the layers that read it; channels that are multiplied (squeeze and excitation) form one group. Every
unsupported operation (concatenation, padding of channels, attention) and every residual sum keeps its width, so
shortcuts need no special treatment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.models.inspect.dataflow import Call, Trace
from potstill.models.inspect.plain_layers import plain_types

ELEMENTWISE = {
    f"aten.{name}{suffix}"
    for suffix in ("", "_")
    for name in (
        *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "gelu", "elu", "leaky_relu"),
        *("mish", "clamp", "clamp_min", "clone", "detach", "alias", "neg", "abs", "softplus", "_to_copy"),
    )
}
SPATIAL = {  # operate on each channel separately; axis 1 of [B, C, H, W]
    "aten.max_pool2d_with_indices",
    "aten.avg_pool2d",
    "aten._adaptive_avg_pool2d",
    "aten.adaptive_max_pool2d",
    "aten.upsample_nearest2d",
    "aten.upsample_bilinear2d",
}
SUMS = {"aten.add", "aten.add_", "aten.sub", "aten.sub_", "aten.div", "aten.div_"}
PRODUCTS = {"aten.mul", "aten.mul_"}
RESHAPES = {"aten.view", "aten._unsafe_view", "aten.reshape"}


@dataclass(eq=False)
class Group:
    """Channels numbered 0 to channels - 1, and the layers that have them.

    `writers` have them as outputs (dimension 0 of the weight), `carriers` (BatchNorm, depthwise convolutions) as both,
    `readers` as inputs (dimension 1), each channel `repeat` times in a row after a flatten. Each of `blocks` equal
    parts must keep the same number of channels (grouped convolutions).
    """

    channels: int
    writers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    readers: dict[str, int] = field(default_factory=dict)
    blocks: int = 1
    fixed: bool = False

    @property
    def prunable(self) -> bool:
        return not self.fixed and bool(self.writers) and bool(self.readers) and self.channels > self.blocks


@dataclass(frozen=True)
class _Place:
    """Position of the channels of a group in a tensor: along `axis`, each `repeat` times."""

    group: Group
    axis: int
    repeat: int = 1


def channel_groups(seen: Trace) -> list[Group]:
    """Return the groups of channels that can be pruned, in the order of execution."""
    walk = _Walk(seen)
    for call in seen.calls:
        walk.layer(call) if call.layer else walk.operation(call)
    for tensor in seen.returned:
        walk.fix(tensor)
    groups = dict.fromkeys(place.group for place in walk.places.values())
    return [group for group in groups if group.prunable]


class _Walk:
    def __init__(self, seen: Trace) -> None:
        self.seen = seen
        self.repeated = seen.repeated()
        self.plain = plain_types()
        self.places: dict[int, _Place] = {}

    def fix(self, *tensors: int) -> None:
        for tensor in tensors:
            if tensor in self.places:
                self.places[tensor].group.fixed = True

    def layer(self, call: Call) -> None:
        source, made = call.inputs[0], call.outputs[0]
        layer, place = call.layer, self.places.get(source)
        assert layer is not None, "the call of a layer"
        axis = len(self.seen.shapes[made]) - 1 if isinstance(layer, nn.Linear) else 1
        channels = self.seen.shapes[made][axis]
        carries = isinstance(layer, _BatchNorm) or _depthwise(layer)
        known = isinstance(layer, _BatchNorm) or type(layer) in self.plain
        if not known or call.name in self.repeated or (place and (place.axis != axis or carries and place.repeat > 1)):
            self.fix(source)
            self.places[made] = _Place(Group(channels, fixed=True), axis)
        elif carries and place:
            place.group.carriers.append(call.name)
            self.places[made] = place
        else:
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            if place:
                place.group.readers[call.name] = place.repeat
                place.group.blocks = math.lcm(place.group.blocks, groups)
            # BatchNorm or depthwise convolution directly on the image: not prunable
            self.places[made] = _Place(Group(channels, [call.name], blocks=groups, fixed=carries), axis)

    def operation(self, call: Call) -> None:
        known = [tensor for tensor in call.inputs if tensor in self.places]
        if not known:
            return
        place = self._result(call, known)
        if place is None:
            self.fix(*known)
            return
        for made in call.outputs:
            self.places[made] = place

    def _result(self, call: Call, known: list[int]) -> _Place | None:
        """Return the position of the channels in the result of an operation; None if it is not supported."""
        place, shape, made = self.places[known[0]], self.seen.shapes[known[0]], self.seen.shapes[call.outputs[0]]
        if any(math.prod(self.seen.shapes[tensor]) > 1 for tensor in call.inputs if tensor not in self.places):
            return None
        if len(known) == 1:
            return self._of_one(call, place, shape, made)
        places = [self.places[tensor] for tensor in known]
        if call.operation in SUMS:
            return place if all(other == place for other in places) else None
        if call.operation in PRODUCTS and all(_alike(other, place) for other in places):
            sizes = {self.seen.shapes[tensor][place.axis] for tensor in known}
            dimensions = {len(self.seen.shapes[tensor]) for tensor in known}
            return self._merge(places) if len(sizes) == len(dimensions) == 1 else None
        return None

    def _of_one(self, call: Call, place: _Place, shape: tuple[int, ...], made: tuple[int, ...]) -> _Place | None:
        image = place.axis == 1 and place.repeat == 1 and len(shape) == 4
        if call.operation in ELEMENTWISE | SUMS | PRODUCTS:
            return place
        if call.operation in SPATIAL and image:
            return place
        if call.operation == "aten.mean" and image and all(d % 4 > 1 for d in call.arguments[1]):
            return place
        if call.operation == "aten.constant_pad_nd" and image and len(call.arguments[1]) <= 4:
            return place
        if call.operation in RESHAPES and place.axis == 1 and place.repeat == 1:
            return _reshaped(place, shape, made)
        return None

    def _merge(self, places: list[_Place]) -> _Place:
        first = places[0].group
        for other in dict.fromkeys(place.group for place in places[1:] if place.group is not first):
            first.writers += other.writers
            first.carriers += other.carriers
            first.readers |= other.readers
            first.blocks = math.lcm(first.blocks, other.blocks)
            first.fixed |= other.fixed
            for tensor, place in self.places.items():
                if place.group is other:
                    self.places[tensor] = _Place(first, place.axis, place.repeat)
        return places[0]


def _alike(one: _Place, other: _Place) -> bool:
    return (one.axis, one.repeat, one.group.channels) == (other.axis, other.repeat, other.group.channels)


def _reshaped(place: _Place, shape: tuple[int, ...], made: tuple[int, ...]) -> _Place | None:
    batch, channels, *rest = shape
    if made == (batch, channels * math.prod(rest)):
        return _Place(place.group, 1, math.prod(rest))
    if made[:2] == (batch, channels) and math.prod(rest) == 1:
        return place
    return None


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1

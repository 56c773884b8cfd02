"""Shapes and order of execution of a network's modules, recorded in one forward pass.

That is all that stages, taps, layer tables and freezing need, and it works for any network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from potstill.models.hooks import Kind, extra_tokens
from potstill.models.outputs import Classifier, bare


@dataclass
class ModuleCall:
    """The last call of a module. shape, input_shape: of output and first input without the batch; None if no tensor.

    start, end: when it was called and when it returned, on a common clock. overwritten: a later layer overwrote its
    output in place.
    """

    path: str
    module: nn.Module
    start: int
    end: int = -1
    shape: tuple[int, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    overwritten: bool = False
    input_overwritten: bool = False

    @property
    def weighted(self) -> bool:
        """Whether the module itself, not a submodule, has parameters."""
        return next(self.module.parameters(recurse=False), None) is not None


class Trace:
    """The modules of a network in the order in which they returned, for images of (height, width) = `size`."""

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        self.size = tuple(image.shape[-2:])
        self._clock = 0
        self._open: dict[str, ModuleCall] = {}
        self._kept: list[tuple[ModuleCall, str, Tensor, int]] = []
        paths = {module: path for path, module in network.named_modules()}
        handles = [h for module, path in paths.items() for h in self._watch(module, path)]
        mode = {module: module.training for module in network.modules()}
        try:
            network.eval()
            with torch.no_grad():
                network(image)
        finally:
            for handle in handles:
                handle.remove()
            for module, training in mode.items():
                module.training = training
        self._mark_overwritten()
        self.seen = sorted((s for s in self._open.values() if s.end >= 0), key=lambda s: s.end)

    def _watch(self, module: nn.Module, path: str):
        yield module.register_forward_pre_hook(lambda m, inputs: self._enter(m, path, inputs))
        yield module.register_forward_hook(lambda m, inputs, output: self._leave(path, output))

    def _enter(self, module: nn.Module, path: str, inputs: tuple) -> None:
        seen = self._open[path] = ModuleCall(path, module, start=self._tick())
        if inputs and isinstance(inputs[0], Tensor):
            seen.input_shape = tuple(inputs[0].shape[1:])
            self._kept.append((seen, "input_overwritten", inputs[0], inputs[0]._version))

    def _leave(self, path: str, output: object) -> None:
        seen = self._open[path]
        seen.end = self._tick()
        if isinstance(output, Tensor):
            seen.shape = tuple(output.shape[1:])
            self._kept.append((seen, "overwritten", output, output._version))

    def _mark_overwritten(self) -> None:
        for seen, flag, tensor, version in self._kept:
            setattr(seen, flag, tensor._version != version)
        self._kept.clear()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    @cached_property
    def by_path(self) -> dict[str, ModuleCall]:
        """The modules by their path."""
        return {seen.path: seen for seen in self.seen}

    @cached_property
    def head(self) -> ModuleCall:
        """The layer that outputs the logits: the last linear or convolution layer to return."""
        return [s for s in self.seen if isinstance(s.module, nn.Linear | nn.Conv2d)][-1]

    @cached_property
    def one_pixel(self) -> float:
        """When a strided convolution first output a map of one pixel; before that, one pixel means global pooling."""
        ends = (s.end for s in self.seen if s.shape is not None and s.shape[1:] == (1, 1) and _strides(s.module))
        return min(ends, default=math.inf)

    def layout(self, shape: tuple[int, ...]) -> tuple[Kind, tuple[int, ...], bool] | None:
        """Return kind, shape in the order of that kind, and whether channels are last; None for other shapes.

        A map has the aspect ratio of the image; attention has three dimensions too, with other proportions.
        """
        if len(shape) == 1:
            return "vector", shape, False
        if len(shape) == 2 and extra_tokens(shape[0]) <= 8:
            return "tokens", shape, False
        if len(shape) != 3:
            return None
        if self._like_image(shape[1:]):
            return "map", shape, False
        return ("map", (shape[2], *shape[:2]), True) if self._like_image(shape[:2]) else None

    def _like_image(self, sides: tuple[int, ...]) -> bool:
        """Whether two sides have about the aspect ratio of the image."""
        height, width = self.size
        return abs(sides[0] - sides[1] * height / width) <= max(1.0, math.sqrt(sides[0]) / 2)


def _strides(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.stride) > 1


def trace(classifier: Classifier) -> Trace:
    """Trace the network with one blank image of the card's size; the network is not changed."""
    card = classifier.card
    device = classifier.mean.device
    return Trace(bare(classifier.network), torch.zeros(1, card.channels, *card.size, device=device))

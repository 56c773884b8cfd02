"""Block reconstruction: weights are rounded so that the outputs of a block change least, not the single weights.

Post-training quantization block by block, on the outputs of the quantized blocks before it (BRECQ, arXiv:2102.05426),
by gradient descent on a few unlabelled images. What is learned are weights, steps and biases, with the straight-through
estimator (LSQ, arXiv:1902.08153). Learning only whether a weight is rounded up or down (AdaRound, arXiv:2004.10568)
left twice the divergence from the float network: ResNet-20 with 3-bit weights, the same images and number of steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill import progress
from potstill.compress.quantize.fake import QuantConv2d, QuantLinear, quantized_layers
from potstill.models.inspect.dataflow import evaluating
from potstill.models.inspect.macs import cost
from potstill.models.inspect.plain_layers import depthwise, has_depthwise, plain_layers
from potstill.models.inspect.segments import Segment, segments

Layer = QuantConv2d | QuantLinear

STEPS = (50, 500)  # the smallest and the largest number per block
WORK = 6.5e11  # multiply-accumulates of all forward passes: 500 steps for ResNet-20, fewer for larger networks
DEPTHWISE = 2  # networks with depthwise layers take so many times as long for a multiply-accumulate
CHANNELS_LAST = 65  # pixels from which this memory format is faster (photos), up to 1.5 times with depthwise layers
MEMORY = 1.5e9  # bytes of all inputs and outputs of one block


@dataclass(frozen=True)
class Reconstruction:
    """Settings of the descent (Adam, cosine schedule), in units that do not depend on the network.

    steps: per block; None: by the size of the network. batch: images per step. weight_rate, step_rate: of weights and
    of steps, relative to the mean step of the layer. bias_rate: of biases, relative to their mean magnitude.
    """

    steps: int | None = None
    batch: int = 32
    weight_rate: float = 3e-2
    step_rate: float = 1e-3
    bias_rate: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class _Block:
    """Layers that are rounded together. run: the quantized block. given, wanted: batches of its input and output."""

    run: Callable[[Tensor], Tensor]
    layers: Mapping[str, Layer]
    given: Sequence[Tensor]
    wanted: Sequence[Tensor]

    def error(self) -> Tensor:
        """Return the mean squared error of the output over all batches."""
        with torch.no_grad():
            errors = [_distance(self.run(x), y) for x, y in zip(self.given, self.wanted, strict=True)]
        return torch.stack(errors).mean()


def reconstruct(
    model: nn.Module, reference: nn.Module, image: Tensor, settings: Reconstruction = Reconstruction()
) -> nn.Module:
    """Return a copy of a quantized model whose weights are on their grids, rounded by reconstruction.

    Args:
        model: from `quantized`; input quantizers are used, and their steps learned, where a layer has one.
        reference: the float model that was quantized.
        image: calibration images [N, C, H, W], 256 or more; labels are not needed.

    Blocks are the segments of the data flow (residual blocks; a depthwise and the following layer; single layers). If
    the data flow cannot be divided, every layer is reconstructed by itself. Layers that run more than once are rounded
    to nearest. The result is deterministic for a seed and a number of threads.
    """
    model = copy.deepcopy(model).eval()
    if image.shape[-1] >= CHANNELS_LAST:
        image = image.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    size = min(settings.batch, len(image))
    parts = segments(model, image[:size], joined=depthwise)
    batches = image[: len(image) // size * size].split(size)
    steps = settings.steps or _steps(model, image, size)
    generator = torch.Generator().manual_seed(settings.seed)
    once = _layers_that_run_once(model, image[:size])
    blocks = _of_segments(parts, once, reference, _affordable(parts, batches))
    if not parts:
        progress.note(
            "The data flow of the network cannot be divided into blocks: every layer is reconstructed by itself."
        )
        blocks = _of_layers(model, once, reference, batches)
    with progress.task("Reconstructing blocks", total=len(parts) or len(once)) as task:
        for block in blocks:
            if block.layers:
                _fit(block, settings, steps, generator)
            task.advance()
    return model


def _steps(model: nn.Module, image: Tensor, batch: int) -> int:
    fewest, most = STEPS
    work = cost(model, image).total_macs * batch * (DEPTHWISE if has_depthwise(model) else 1)
    return int(min(max(WORK / work, fewest), most))


def _layers_that_run_once(model: nn.Module, image: Tensor) -> dict[str, Layer]:
    calls: dict[str, int] = {}
    layers = quantized_layers(model)

    def count(name: str) -> Callable[..., None]:
        return lambda *_: calls.update({name: calls.get(name, 0) + 1})

    hooks = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        with evaluating(model):
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: layers[name] for name, times in calls.items() if times == 1}


def _affordable(parts: Sequence[Segment], batches: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return as many batches as the tensors between the parts leave memory for."""
    largest, passed = batches[0].nbytes, batches[0]
    with torch.no_grad():
        for part in parts:
            passed = part.run(passed)
            largest = max(largest, passed.nbytes)
    return batches[: max(1, int(MEMORY / (3 * largest)))]


def _of_segments(
    parts: Sequence[Segment], layers: Mapping[str, Layer], reference: nn.Module, batches: Sequence[Tensor]
) -> Iterator[_Block]:
    """Yield each part as a block; its input is computed after the parts before it were fitted."""
    floats = plain_layers(reference)
    given = wanted = list(batches)
    for part in parts:
        with torch.no_grad():
            wanted = [part.run(x, floats) for x in wanted]
        yield _Block(part.run, {name: layers[name] for name in part.layers if name in layers}, given, wanted)
        with torch.no_grad():
            given = [part.run(x) for x in given]


def _of_layers(
    model: nn.Module, layers: Mapping[str, Layer], reference: nn.Module, batches: Sequence[Tensor]
) -> Iterator[_Block]:
    """Yield each layer as a block."""
    floats = plain_layers(reference)
    for name, layer in layers.items():
        given = [x for x, _ in _watched(model, layer, batches)]
        wanted = [y for _, y in _watched(reference, floats[name], batches)]
        yield _Block(layer, {name: layer}, given, wanted)


def _watched(model: nn.Module, layer: nn.Module, batches: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return input and output of a layer for each batch."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].clone(), output.clone())))
    try:
        with evaluating(model):
            for image in batches:
                model(image)
    finally:
        hook.remove()
    return seen


def _fit(block: _Block, settings: Reconstruction, steps: int, generator: torch.Generator) -> None:
    """Learn weights, steps and biases of the layers of a block, in place; then round the weights."""
    scale = block.error().clamp(min=torch.finfo(torch.float32).tiny)
    optimizer = torch.optim.Adam([group for layer in block.layers.values() for group in _groups(layer, settings)])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        turn = int(torch.randint(len(block.given), (1,), generator=generator))
        loss = _distance(block.run(block.given[turn]), block.wanted[turn]) / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for layer in block.layers.values():
            layer.weight.copy_(layer.weight_quantizer(layer.weight))


def _groups(layer: Layer, settings: Reconstruction) -> Iterator[dict[str, Any]]:
    """Yield the parameter groups of a layer."""
    step = layer.weight_quantizer.step
    unit = float(step.detach().abs().mean())
    yield {"params": [layer.weight], "lr": settings.weight_rate * unit}
    yield {"params": [step], "lr": settings.step_rate * unit}
    if layer.bias is not None:
        yield {"params": [layer.bias], "lr": settings.bias_rate * max(float(layer.bias.detach().abs().mean()), unit)}
    if layer.input_quantizer is not None:
        step = layer.input_quantizer.step
        yield {"params": [step], "lr": settings.step_rate * float(step.detach().abs())}


def _distance(output: Tensor, wanted: Tensor) -> Tensor:
    return (output - wanted).square().mean()

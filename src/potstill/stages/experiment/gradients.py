"""Gradients of a network: how large they are in each layer, and rounding them while a network is trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.compress.formats import NumberFormat
from potstill.data.draws import drawn
from potstill.models.outputs import Classifier, bare
from potstill.stages.dataset import Data

IMAGES = 256


def by_layer(model: Classifier, data: Data, *, aux_weight: float) -> list[dict[str, Any]]:
    """Return the gradients of the cross-entropy for a batch of training images: a row per layer, in order.

    rms: root mean square of the gradient of its weights. relative: its norm, divided by that of the weights.
    largest, median: magnitudes; a median of 0 has more zeros than other values. The heads in `aux` count with
    `aux_weight`. The model is not changed.
    """
    model = copy.deepcopy(model).cpu().train()
    rows = drawn(data.manifest.rows("train", labelled=True), IMAGES, "gradients")
    image = data.for_input_of(model.card).loader().clean_batch(rows).image
    label = torch.from_numpy(data.manifest.label[rows])
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout
        outputs = model(image)
    loss = F.cross_entropy(outputs.logits, label)
    loss = loss + aux_weight * sum(F.cross_entropy(logits, label) for logits in outputs.aux)
    loss.backward()
    layers = [(n, m) for n, m in bare(model.network).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [_described(name, layer.weight) for name, layer in layers if layer.weight.grad is not None]


def _described(name: str, weight: Tensor) -> dict[str, Any]:
    assert weight.grad is not None
    gradient = weight.grad.abs().flatten()
    norm = weight.detach().norm().clamp_min(1e-30)
    return {
        "layer": name,
        "rms": float(gradient.square().mean().sqrt()),
        "relative": float(gradient.norm() / norm),
        "largest": float(gradient.max()),
        "median": float(gradient.median()),
    }


def round_gradients(model: Classifier, number: NumberFormat) -> None:
    """Round the gradient of every parameter to a format before the optimizer sees it; saved weights are not affected.

    The gradient is rounded as it is, without a scale: that is what makes low precision hard for gradients.
    """
    for parameter in model.parameters():
        parameter.register_hook(number.quantize)


def survives(layers: list[dict[str, Any]], number: NumberFormat) -> dict[str, float]:
    """Return what a format does to these gradients, in percent of the layers.

    rounded_to_zero: more than half of the gradient becomes 0. saturated: the largest magnitude is out of range.
    """
    half = torch.tensor([layer["median"] for layer in layers])
    zero = (number.quantize(half) == 0).float().mean()
    high = number.range[1]
    beyond = sum(layer["largest"] > high for layer in layers) / max(len(layers), 1)
    return {"rounded_to_zero": round(100 * float(zero), 2), "saturated": round(100 * beyond, 2)}

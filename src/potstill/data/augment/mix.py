"""Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899): each image of a batch is mixed with a partner.

A `Mix` holds the partners and weights of a batch and is a pure function of (seed, step). Labels and the teacher's
probabilities are mixed by the same `Mix`, so cached teacher outputs can be used with mixed images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from potstill.data.draws import uniform

KINDS = ("mixup", "cutmix")


@dataclass(frozen=True)
class Mix:
    """partner: int64 [B], the row each row is mixed with. weight: float32 [B] in 0..1, the weight of the row itself.
    box: (top, bottom, left, right) in pixels that CutMix copies from the partner; None for mixup."""

    partner: Tensor
    weight: Tensor
    box: tuple[int, int, int, int] | None = None


def draw_mix(
    kind: str,
    alpha: float,
    *,
    seed: int,
    step: int,
    batch_size: int,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Mix:
    """Return the mix of a step: one weight from Beta(alpha, alpha) for the batch, partners by a permutation.

    kind: "mixup" or "cutmix". size: (height, width) of the images, required by CutMix; its weight is the fraction of
    pixels kept after the box is clipped at the border.
    """
    assert kind in KINDS and alpha > 0
    order = np.argsort(uniform(seed, np.arange(batch_size), np.full(batch_size, step), 1, "mix.partner")[:, 0])
    weight, box = _beta(alpha, seed, step), None
    if kind == "cutmix":
        assert size is not None, "CutMix needs the size of the images"
        box = _box(weight, size, uniform(seed, np.array([step]), np.array([0]), 2, "mix.box")[0])
        top, bottom, left, right = box
        weight = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    weights = torch.full((batch_size,), weight, dtype=torch.float32, device=device)
    return Mix(torch.from_numpy(order).to(device), weights, box)


def apply_mix(image: Tensor, mix: Mix) -> Tensor:
    """Return the mixed images; image: float [B, C, H, W]."""
    partner = image[mix.partner]
    if mix.box is None:
        return torch.lerp(partner, image, mix.weight[:, None, None, None].to(image.dtype))
    top, bottom, left, right = mix.box
    result = image.clone()
    result[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
    return result


def mix_targets(probabilities: Tensor, mix: Mix) -> Tensor:
    """Return weight * own + (1 - weight) * partner's probabilities [B, K]."""
    weight = mix.weight[:, None].to(probabilities.dtype)
    return torch.lerp(probabilities[mix.partner], probabilities, weight)


def _beta(alpha: float, seed: int, step: int) -> float:
    """Return a draw from Beta(alpha, alpha) for a step."""
    key = uniform(seed, np.array([step]), np.array([0]), 1, "mix.weight")[0, 0]
    generator = np.random.Generator(np.random.Philox(int(key * 2**53)))
    return float(generator.beta(alpha, alpha))


def _box(weight: float, size: tuple[int, int], u: np.ndarray) -> tuple[int, int, int, int]:
    """Return a box of area (1 - weight) around a uniform centre, clipped at the border."""
    (top, bottom), (left, right) = (
        _side(length, float(centre), weight) for length, centre in zip(size, u, strict=True)
    )
    return top, bottom, left, right


def _side(length: int, centre: float, weight: float) -> tuple[int, int]:
    half = int(length * np.sqrt(1 - weight)) // 2
    middle = int(centre * length)
    return max(middle - half, 0), min(middle + half, length)

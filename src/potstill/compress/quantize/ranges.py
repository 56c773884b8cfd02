"""Quantization ranges: from observed values to the step of a quantizer.

Activations get an affine grid of 2**bits codes that represents zero exactly: starting at 0 if no value was negative
(after a ReLU), shifted by a zero point otherwise. Weights get a symmetric grid per output channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from potstill.compress.quantize.observe import BINS, Histogram

ActivationMethod = Literal["minmax", "percentile", "mse", "entropy"]
WeightMethod = Literal["absmax", "mse", "lsq"]
PERCENTILE = 0.9999
CANDIDATES = 100


def activation_grid(seen: Histogram, bits: int, method: ActivationMethod) -> tuple[float, int]:
    """Return (step, lowest code) of a grid of 2**bits codes, including zero, for the observed values."""
    low, high = METHODS[method](seen, bits)
    return _grid(min(low, 0.0), max(high, 0.0), bits)


def _grid(low: float, high: float, bits: int) -> tuple[float, int]:
    if low == high:
        return 1.0, 0
    step = (high - low) / (2**bits - 1)
    return step, round(low / step)


def _minmax(seen: Histogram, bits: int) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Histogram, bits: int) -> tuple[float, float]:
    """Clip the largest and the smallest 0.01 % of the values."""
    counts = seen.counts.clone()
    counts[BINS] += seen.zeros
    below = counts.cumsum(0) / counts.sum()
    edges = torch.cat([seen.centres, torch.tensor([seen.limit])])
    low = edges[torch.searchsorted(below, 1 - PERCENTILE)].item()
    high = edges[torch.searchsorted(below, PERCENTILE)].item()
    return max(low, seen.low), min(high, seen.high)


def _best_shrink(seen: Histogram, loss: Callable[[float, float], float], smallest: float) -> tuple[float, float]:
    """Return the range with the smallest loss, with both ends scaled by the same factor."""
    factors = torch.linspace(smallest, 1.0, CANDIDATES).tolist()
    best = min(factors, key=lambda factor: loss(seen.low * factor, seen.high * factor))
    return seen.low * best, seen.high * best


def _mse(seen: Histogram, bits: int) -> tuple[float, float]:
    """Minimise the mean squared difference between the values and the rounded values."""

    def loss(low: float, high: float) -> float:
        codes = _codes(seen, low, high, bits)
        return (seen.counts * (codes[0] * codes[1] - seen.centres).square()).sum().item()

    return _best_shrink(seen, loss, 0.05)


def _entropy(seen: Histogram, bits: int) -> tuple[float, float]:
    """Minimise the Kullback-Leibler divergence of the rounded from the clipped distribution.

    As in the calibration of TensorRT: values outside are added to the outermost bins of the reference but not of its
    rounded version, so clipping has a cost. Ranges with fewer than two bins per code are not tried.
    """

    def loss(low: float, high: float) -> float:
        codes, _ = _codes(seen, low, high, bits)
        inside = (seen.centres >= min(low, 0.0)) & (seen.centres <= max(high, 0.0))
        kept = seen.counts * inside
        reference = _with_outliers(seen.counts, inside)
        index = (codes - codes.min()).long()
        mass = torch.zeros(int(index.max()) + 1, dtype=torch.float64).index_add_(0, index, kept)
        filled = (kept > 0).double()
        share = torch.zeros_like(mass).index_add_(0, index, filled)
        rounded = filled * (mass / share.clamp(min=1))[index]
        return _divergence(reference, rounded)

    used = (max(seen.high, 0.0) - min(seen.low, 0.0)) / (2 * seen.limit) * 2 * BINS
    return _best_shrink(seen, loss, min(1.0, 2 * 2**bits / max(used, 1.0)))


def _with_outliers(counts: Tensor, inside: Tensor) -> Tensor:
    where = inside.nonzero()
    first, last = int(where[0]), int(where[-1])
    kept = counts * inside
    kept[first] += counts[:first].sum()
    kept[last] += counts[last + 1 :].sum()
    return kept


def _divergence(reference: Tensor, rounded: Tensor) -> float:
    p, q = reference / reference.sum(), rounded / rounded.sum()
    filled = p > 0
    return (p[filled] * (p[filled] / q[filled].clamp(min=1e-12)).log()).sum().item()


def _codes(seen: Histogram, low: float, high: float, bits: int) -> tuple[Tensor, float]:
    step, lowest = _grid(min(low, 0.0), max(high, 0.0), bits)
    return (seen.centres / step).round().clamp(lowest, lowest + 2**bits - 1), step


METHODS: dict[str, Callable[[Histogram, int], tuple[float, float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}


def weight_steps(weight: Tensor, bits: int, method: WeightMethod) -> Tensor:
    """Return a positive step per output channel, shape [C, 1, ...], for codes -2**(bits-1) to 2**(bits-1) - 1.

    "absmax" clips nothing, "mse" minimises the squared error of the channel, "lsq" is twice the mean magnitude over
    the root of the largest code, the initial value of learned steps (arXiv:1902.08153). A channel of zeros gets step 1.
    """
    flat = weight.detach().flatten(1)
    largest = 2 ** (bits - 1) - 1
    if method == "lsq":
        steps = 2 * flat.abs().mean(1) / largest**0.5
    else:
        steps = flat.abs().amax(1) / largest
        steps = _least_squares(flat, steps, bits) if method == "mse" else steps
    return torch.where(steps > 0, steps, 1.0).view(-1, *[1] * (weight.dim() - 1))


def _least_squares(flat: Tensor, widest: Tensor, bits: int) -> Tensor:
    best, least = widest, torch.full_like(widest, float("inf"))
    for factor in torch.linspace(0.2, 1.0, CANDIDATES).tolist():
        step = (widest * factor).clamp(min=torch.finfo(flat.dtype).tiny)[:, None]
        codes = (flat / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        error = (codes * step - flat).square().sum(1)
        best = torch.where(error < least, step[:, 0], best)
        least = torch.minimum(error, least)
    return best

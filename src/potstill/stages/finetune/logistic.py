"""Multinomial logistic regression by L-BFGS: convex, so the result depends only on data and penalty."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from potstill.torch_context import threads

STEPS = 200
T = TypeVar("T")


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of features, float32 [D] each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Scaling:
        """Return the scaling that gives each column of x [N, D] mean 0 and deviation 1; constant columns become 0."""
        std, mean = torch.std_mean(x, 0, correction=0)
        return cls(mean, torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, torch.inf))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class Linear:
    """logits = x @ weight.T + bias, weight [K, D] and bias [K]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias

    def unscaled(self, scaling: Scaling) -> Linear:
        """Return the same function of unscaled features."""
        weight = self.weight / scaling.std
        return Linear(weight, self.bias - weight @ scaling.mean)


def fit(x: Tensor, label: Tensor, classes: int, penalty: float, *, start: Linear | None = None) -> Linear:
    """Return the minimum of the mean cross-entropy + penalty / 2 * |weight|^2; the bias is not penalised.

    x: scaled features float32 [N, D]; label: int64 [N], 0..classes-1. start: initial solution, such as that for another
    penalty. A class without examples has the lowest logits. Features are multiplied in float32; parameters and loss of
    the optimiser are float64.
    """
    begin = start or Linear(torch.zeros(classes, x.shape[1]), _log_prior(label, classes))
    loss = _Loss(x, label, classes, penalty)
    options = {"maxiter": STEPS, "gtol": 1e-5, "ftol": 1e-7}
    result = minimize(loss, _flat(begin.weight, begin.bias), jac=True, method="L-BFGS-B", options=options)
    return loss.linear(result.x)


class _Loss:
    """The penalised loss and its gradient for scipy; the parameters are weight and bias in one flat array."""

    def __init__(self, x: Tensor, label: Tensor, classes: int, penalty: float) -> None:
        self._x, self._label, self._classes, self._penalty = x, label, classes, penalty

    def linear(self, flat: np.ndarray) -> Linear:
        both = torch.from_numpy(flat).float()
        weight, bias = both[: -self._classes], both[-self._classes :]
        return Linear(weight.view(self._classes, -1), bias)

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        model = self.linear(flat)
        weight, bias = model.weight.requires_grad_(), model.bias.requires_grad_()
        logits = F.linear(self._x, weight, bias)
        loss = F.cross_entropy(logits.double(), self._label) + self._penalty / 2 * weight.double().square().sum()
        gradient = torch.autograd.grad(loss, (weight, bias))
        return float(loss.detach()), _flat(*gradient)


def _flat(weight: Tensor, bias: Tensor) -> np.ndarray:
    return torch.cat([weight.flatten(), bias]).double().numpy()


def _log_prior(label: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(label, minlength=classes).float()
    return (counts.clamp_min(1e-3) / len(label)).log()


def loss_of(model: Linear, x: Tensor, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the cross-entropy of each row, float64 [N], and whether its class is predicted correctly, bool [N]."""
    logits = model(x)
    return F.cross_entropy(logits, label, reduction="none").double().numpy(), (logits.argmax(1) == label).numpy()


def in_threads(work: Callable[[int], T], count: int) -> list[T]:
    """Return [work(0), ..., work(count - 1)], computed in parallel with one thread each.

    Products of tall matrices with few columns are bound by memory, so several threads for one product gain little.
    """
    workers = min(torch.get_num_threads(), count)
    with threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, range(count)))

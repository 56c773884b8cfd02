"""Multinomial logistic regression by scikit-learn's L-BFGS with warm start, for torch tensors.

It is convex, so the result depends only on data and penalty. An own L-BFGS with torch's gradients took 1.4 to 4.1 times
as long for the choice of a penalty (docs/log.md, 2026-11-28).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.torch_context import threads

STEPS = 1000
TOLERANCE = 1e-4  # of the gradient; the loss is then within 0.1 % of the minimum
BELOW = 10.0  # nats by which the logit of a class without examples is below all others
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


def fit(
    x: Tensor,
    label: Tensor,
    classes: int,
    penalty: float,
    *,
    start: Linear | None = None,
    class_weight: np.ndarray | None = None,
) -> Linear:
    """Return the minimum of the mean cross-entropy + penalty / 2 * |weight|^2; the bias is not penalised.

    x: scaled features float32 [N, D]; label: int64 [N], 0..classes-1. start: initial solution, such as that for another
    penalty. class_weight: of the cross-entropy of a row by its class, float64 [K]. The logit of a class without
    examples is below those of all others on x. The largest entry of the final gradient is at most 1e-4.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    present = torch.unique(label)
    if len(present) == 1:
        return _absent_last(Linear(torch.zeros(1, x.shape[1]), torch.zeros(1)), x, present, classes)
    strength = penalty / 2 if len(present) == 2 else penalty  # the difference of two vectors has twice their squares
    model = LogisticRegression(C=1 / (strength * len(x)), tol=TOLERANCE, max_iter=STEPS, warm_start=start is not None)
    if start is not None:
        model.coef_, model.intercept_ = _stored(start, present)
    model.fit(x.numpy(), label.numpy(), sample_weight=None if class_weight is None else class_weight[label.numpy()])
    return _absent_last(_as_linear(np.asarray(model.coef_), np.asarray(model.intercept_)), x, present, classes)


def _stored(model: Linear, present: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of the present classes in scikit-learn's form: two classes as their difference."""
    weight, bias = model.weight[present].numpy(), model.bias[present].numpy()
    return (weight[1:] - weight[:1], bias[1:] - bias[:1]) if len(present) == 2 else (weight, bias)


def _as_linear(weight: np.ndarray, bias: np.ndarray) -> Linear:
    """Return the inverse of `_stored`: a difference [1, D] is split between both classes."""
    model = Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
    if len(model.bias) > 1:
        return model
    return Linear(torch.cat([-model.weight, model.weight]) / 2, torch.cat([-model.bias, model.bias]) / 2)


def _absent_last(model: Linear, x: Tensor, present: Tensor, classes: int) -> Linear:
    """Return the model with a row for each of `classes`; absent ones are never predicted on x."""
    if len(present) == classes:
        return model
    weight = torch.zeros(classes, x.shape[1])
    bias = (model(x).min() - BELOW).repeat(classes)
    weight[present], bias[present] = model.weight, model.bias
    return Linear(weight, bias)


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

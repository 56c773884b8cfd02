"""Imbalanced classes: what `train.balance` makes of the cross-entropy with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from potstill.errors import ConfigError
from potstill.objectives.objective import Term

Balance = Literal["none", "sqrt", "full", "logit-adjust"]
_LOSS = "cross_entropy"


def balanced(terms: Sequence[Term], counts: np.ndarray, balance: Balance) -> tuple[Term, ...]:
    """Return the terms with the cross-entropy balanced for classes of unequal size.

    counts: int64 [K], labelled training images of each class. "full" weighs a class by the inverse of its size, "sqrt"
    by the square root of that; the mean weight of an image is 1. "logit-adjust" adds the logarithm of the shares to the
    logits in training (arXiv:2007.07314). Raises `ConfigError` if no term is a cross-entropy with the labels.
    """
    if balance == "none":
        return tuple(terms)
    if all(term.loss != _LOSS or not term.weight for term in terms):
        raise ConfigError(f"train.balance={balance} changes the cross-entropy with the labels, and there is none.")
    weight = class_weight(counts, balance)
    options = {"prior": prior(counts).tolist()} if weight is None else {"class_weight": weight.tolist()}
    return tuple(
        term.model_copy(update={"options": {**options, **term.options}}) if term.loss == _LOSS else term
        for term in terms
    )


def class_weight(counts: np.ndarray, balance: Balance) -> np.ndarray | None:
    """Return the weight of an image of each class, float64 [K], whose mean over the images is 1; None for no weights.

    counts: int64 [K], labelled training images of each class.
    """
    if balance not in ("sqrt", "full"):
        return None
    weight = _sizes(counts) ** (-0.5 if balance == "sqrt" else -1.0)
    return weight * counts.sum() / max(float((weight * counts).sum()), 1e-12)


def prior(counts: np.ndarray) -> np.ndarray:
    """Return the share of each class, float64 [K]; a class without images counts as one image."""
    return _sizes(counts) / _sizes(counts).sum()


def _sizes(counts: np.ndarray) -> np.ndarray:
    return np.maximum(counts, 1).astype(np.float64)

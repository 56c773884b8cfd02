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
    sizes = np.maximum(counts, 1).astype(np.float64)
    if balance == "logit-adjust":
        options = {"prior": (sizes / sizes.sum()).tolist()}
    else:
        weight = sizes ** (-0.5 if balance == "sqrt" else -1.0)
        options = {"class_weight": (weight * counts.sum() / max(float((weight * counts).sum()), 1e-12)).tolist()}
    return tuple(
        term.model_copy(update={"options": {**options, **term.options}}) if term.loss == _LOSS else term
        for term in terms
    )

"""Pruning: functions from a model to a smaller (or sparser) one, which trains and exports like any other model."""

from potstill.compress.prune.importance import Importance, scores
from potstill.compress.prune.inner import inner_channels
from potstill.compress.prune.masks import finalized, n_of_m, sparsity_of, unstructured
from potstill.compress.prune.sensitivity import sensitivity
from potstill.compress.prune.surgery import resized
from potstill.compress.prune.torch_pruning import all_channels

__all__ = [
    "Importance",
    "all_channels",
    "finalized",
    "inner_channels",
    "n_of_m",
    "resized",
    "scores",
    "sensitivity",
    "sparsity_of",
    "unstructured",
]

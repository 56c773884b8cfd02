"""Batched augmentations; each is a pure function of the images and of given uniform random numbers."""

from potstill.data.augment.mix import Mix, apply_mix, draw_mix, mix_targets
from potstill.data.augment.policy import Policy, default_policy, parse_policy

__all__ = ["Mix", "Policy", "apply_mix", "default_policy", "draw_mix", "mix_targets", "parse_policy"]

"""A student that reuses its teacher's classifier: its last map, a small projector, and the teacher's last layer.

This is the result of SimKD (arXiv:2203.14001). Projector and classifier are part of the network, so parameter counts,
files and measurements include them; the student's own classifier is removed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.errors import ConfigError
from potstill.losses.fusion import SimKD
from potstill.models.class_map import MappedClassifier
from potstill.models.hooks import Tap, Taps
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.heads_and_norms import last_linear
from potstill.models.outputs import Classifier, bare

SHARED_HEAD = "reused:"
"""Prefix of such a student's name on its card; not meant as input."""

PROJECTED = Tap("projected", "bridge.projector")
"""The projected map of a student with a reused head, which replaces the teacher's map."""


class ReusedHead(nn.Module):
    """A trunk with a tap at a map [B, C, H, W], a projector to the teacher's channels, and the teacher's classifier."""

    def __init__(self, trunk: nn.Module, tap: Tap, size: tuple[int, int], bridge: SimKD, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.tap, self.size = trunk, tap, size
        self.bridge, self.head = bridge, head

    def forward(self, image: Tensor) -> Tensor:
        with Taps(self.trunk, [self.tap]) as taps:
            self.trunk(image)
        feature = taps.collected[self.tap.name]
        if feature.shape[-1] > self.size[-1]:
            feature = F.adaptive_avg_pool2d(feature, self.size)
        return self.head(self.bridge.projector(feature).mean((2, 3)))


def reuse_head(student: Classifier, on: Tap, teacher: Classifier, there: Tap, *, factor: int = 2) -> Classifier:
    """Return a student with a new projector and the teacher's classifier, frozen.

    on, there: the taps of the student's and the teacher's last map. Raises `ConfigError` if the teacher's logits are
    not a linear function of the mean of its map.
    """
    _check(on, there)
    weight, bias = _classifier(teacher, there)
    trunk = copy.deepcopy(bare(student.network))
    own_head = trace(student).head.path
    options = {
        "student": student.card.options,
        "tap": asdict(on),
        "own_head": own_head,
        "channels": there.shape[0],
        "size": list(there.shape[1:]),
        "factor": factor,
    }
    network = _assemble(trunk, options, len(weight)).to(student.mean.device)
    network.head.load_state_dict({"weight": weight, "bias": bias})
    network.head.requires_grad_(False)
    card = student.card.replace(model=f"{SHARED_HEAD}{student.card.model}", options=options)
    return student.replace(network=network, card=card)


def rebuild(trunk: nn.Module, options: Mapping[str, Any], classes: int) -> ReusedHead:
    """Return the network that `reuse_head` created, from its options on the card."""
    return _assemble(bare(trunk), options, classes)


def _assemble(trunk: nn.Module, options: Mapping[str, Any], classes: int) -> ReusedHead:
    trunk.set_submodule(options["own_head"], nn.Identity())
    tap = Tap(**{**options["tap"], "shape": tuple(options["tap"]["shape"])})
    bridge = SimKD(tap.shape[0], options["channels"], factor=options["factor"])
    return ReusedHead(trunk, tap, tuple(options["size"]), bridge, nn.Linear(options["channels"], classes))


def _check(on: Tap, there: Tap) -> None:
    for tap, side in ((on, "student"), (there, "teacher")):
        if tap.kind != "map":
            raise ConfigError(
                f"The loss simkd compares the last maps of two networks, but '{tap.name}' of the {side} is a "
                f"{tap.kind} of shape {tap.shape}. Choose convolutional networks, or use srrl, which compares vectors."
            )


def _classifier(teacher: Classifier, there: Tap) -> tuple[Tensor, Tensor]:
    weight, bias = last_linear(trace(teacher))
    if isinstance(teacher, MappedClassifier):
        weight, bias = teacher.class_map.rows(weight), teacher.class_map.rows(bias)
    teacher = teacher.replace(taps=(there,))
    image = torch.rand(2, teacher.card.channels, *teacher.card.size, generator=torch.Generator().manual_seed(0))
    training = teacher.training
    with torch.no_grad():
        outputs = teacher.eval()(image.to(teacher.mean.device))
    teacher.train(training)
    pooled = outputs.features[there.name].mean((2, 3))
    fits = pooled.shape[1] == weight.shape[1] and len(weight) == outputs.logits.shape[1]
    if not fits or not torch.allclose(F.linear(pooled, weight, bias), outputs.logits, rtol=1e-3, atol=1e-3):
        raise ConfigError(
            f"The loss simkd needs a teacher whose logits are a linear layer on the mean of a map, and those of "
            f"{teacher.card.model} are not for '{there.name}'. Set its last map with `teacher_on`, or use srrl or "
            "reviewkd."
        )
    return weight.detach(), bias.detach()

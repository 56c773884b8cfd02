"""A classifier from a probe: its weights become the last layer of the network or of a truncated one."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from potstill.errors import ModelError
from potstill.models.hooks import Tap, as_vector
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, bare
from potstill.models.truncated import cut
from potstill.stages.finetune.logistic import Linear


def with_head(classifier: Classifier, layer: str, head: Linear) -> Classifier:
    """Return a copy of the network with logits `head(features of layer)`, in eval mode.

    If the head cannot replace the last layer (the features are of an earlier layer, or the last layer is followed by
    others), the network is truncated at the features.
    """
    (tap,) = resolve(classifier, [layer])
    made = _on_top(classifier, head) if layer == "pooled" else None
    if made is None or not _computes(made, tap, head):
        made = _truncated(classifier, tap if layer != "pooled" else resolve(classifier, ["stage:-1"])[0], head)
        if not _computes(made, tap, head, of=classifier):
            raise ModelError(
                f"The last layer of {classifier.card.typed} cannot be replaced by the probe, because other layers "
                "follow it or precede it after the last feature map. Choose another layer: stage:-1."
            )
    return made.eval()


def _truncated(classifier: Classifier, tap: Tap, head: Linear) -> Classifier:
    made = cut(classifier.replace(network=copy.deepcopy(bare(classifier.network))), tap)
    _fill(cast(nn.Linear, made.network.head), head)  # `cut` ends in a new linear layer
    return made


def _on_top(classifier: Classifier, head: Linear) -> Classifier | None:
    made = classifier.replace(network=copy.deepcopy(bare(classifier.network)))
    last = trace(made).head.module
    if not isinstance(last, nn.Linear) or last.weight.shape != head.weight.shape or last.bias is None:
        return None
    _fill(last, head)
    return made


@torch.no_grad()
def _fill(layer: nn.Linear, head: Linear) -> None:
    layer.weight.copy_(head.weight)
    layer.bias.copy_(head.bias)


@torch.no_grad()
def _computes(made: Classifier, tap: Tap, head: Linear, *, of: Classifier | None = None) -> bool:
    """Return whether the logits for noise equal `head(features)`. of: the network of the features, if not `made`."""
    card = made.card
    noise = torch.rand(2, card.channels, *card.size, generator=torch.Generator().manual_seed(0))
    image = noise.to(made.mean.device)
    features = (of or made).eval().replace(taps=(tap,))(image).features[tap.name]
    expected = F.linear(as_vector(features).cpu(), head.weight, head.bias)
    return torch.allclose(made.eval()(image).logits.cpu(), expected, rtol=1e-3, atol=1e-3)

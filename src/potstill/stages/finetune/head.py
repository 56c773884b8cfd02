"""A probe becomes an ordinary classifier: its weights are the last layer, on the whole network or on a cut one."""

from __future__ import annotations

import copy

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
    """Return a copy of the network whose logits are `head` on the vectors of `layer`, in eval mode.

    Where the head cannot take the place of the last layer (the features come from below, or something follows that
    layer), the network is cut at the features.
    """
    (tap,) = resolve(classifier, [layer])
    made = _on_top(classifier, head) if layer == "pooled" else None
    if made is None or not _says(made, tap, head):
        made = _cut(classifier, tap if layer != "pooled" else resolve(classifier, ["stage:-1"])[0], head)
        if not _says(made, tap, head, of=classifier):
            raise ModelError(
                f"The last layer of {classifier.card.model} cannot take the probe's weights: something follows it, or "
                f"comes between it and the last map. Use --features stage:-1."
            )
    return made.eval()


def _cut(classifier: Classifier, tap: Tap, head: Linear) -> Classifier:
    made = cut(classifier.replace(network=copy.deepcopy(bare(classifier.network))), tap)
    _fill(made.network.head, head)
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
def _says(made: Classifier, tap: Tap, head: Linear, *, of: Classifier | None = None) -> bool:
    """Tell whether the logits are the head on the features (`of` another network than `made`), asked about noise."""
    card = made.card
    noise = torch.rand(2, card.channels, *card.size, generator=torch.Generator().manual_seed(0))
    image = noise.to(made.mean.device)
    features = (of or made).eval().replace(taps=(tap,))(image).features[tap.name]
    expected = F.linear(as_vector(features).cpu(), head.weight, head.bias)
    return torch.allclose(made.eval()(image).logits.cpu(), expected, rtol=1e-3, atol=1e-3)

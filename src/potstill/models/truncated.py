"""A truncated network: all layers up to one of them, global average pooling, and a linear head.

For images unlike photographs, earlier layers transfer better than the last one. The layers after the cut are removed,
so the model is smaller and faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from potstill.errors import ModelError
from potstill.models.hooks import Tap, as_vector
from potstill.models.outputs import Classifier, bare

TRUNCATED = "cut:"
"""Prefix of such a network's name on its card; not meant as input."""


class TruncatedNetwork(nn.Module):
    """The layers up to a tap, its features averaged to a vector [B, D], and logits [B, K]."""

    def __init__(self, body: nn.Module, tap: Tap, classes: int) -> None:
        super().__init__()
        self.body, self.tap = body, tap
        self.head = nn.Linear(tap.shape[-1] if tap.kind == "tokens" else tap.shape[0], classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(as_vector(self.tap.laid_out(self.body(image)["features"])))


def cut(classifier: Classifier, tap: Tap) -> Classifier:
    """Return a classifier that shares the layers up to a tap, with a new head; it can be saved and loaded.

    Raises `ModelError` if the network cannot be traced, because its path depends on values.
    """
    card = classifier.card
    network = _cut(bare(classifier.network), tap, len(card.classes), card.model).to(classifier.mean.device)
    options = {"whole": card.options, "tap": asdict(tap)}
    return classifier.replace(network=network, card=card.replace(model=f"{TRUNCATED}{card.model}", options=options))


def rebuild(network: nn.Module, model: str, options: Mapping[str, Any], classes: int) -> TruncatedNetwork:
    """Return the network that `cut` created from the network `model`, from its options on the card."""
    return _cut(bare(network), _tap(options["tap"]), classes, model)


def _tap(written: Mapping[str, Any]) -> Tap:
    return Tap(**{**written, "shape": tuple(written["shape"])})


def _cut(network: nn.Module, tap: Tap, classes: int, model: str) -> TruncatedNetwork:
    return TruncatedNetwork(_body(network, tap, model), tap, classes)


def _body(network: nn.Module, tap: Tap, model: str) -> nn.Module:
    from timm.models import create_feature_extractor

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about code that it rewrites
            traced = create_feature_extractor(network, {tap.path: "features"})
    except Exception as error:  # symbolic tracing runs the network's own code, which may raise anything
        raise ModelError(
            f"{model} cannot be truncated at '{tap.name}' ({type(error).__name__}). Use --features pooled, or another "
            "model."
        ) from None
    return _without_dead_code(traced, cast(fx.Graph, traced.eval_graph))


def _without_dead_code(root: nn.Module, graph: fx.Graph) -> nn.Module:
    """Return the graph as a module with only the layers it needs; shape assertions would keep others alive."""
    for node in reversed(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return fx.GraphModule(root, graph)

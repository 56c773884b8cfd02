"""A network that ends early: everything up to one of its layers, a global average, and a linear head.

Far from photographs lower layers transfer better than the last one. What lies above the cut is gone, not skipped, so
the model is as small and as fast as it looks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, fx, nn

from potstill.errors import ModelError
from potstill.models.hooks import Tap, as_vector
from potstill.models.outputs import Classifier, bare

TRUNCATED = "cut:"
"""Prefix of such a network's name on its card; nobody types it."""


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

    Raises `ModelError` where the network chooses its way by values, so that it cannot be taken apart.
    """
    card = classifier.card
    network = _cut(bare(classifier.network), tap, len(card.classes), card.model).to(classifier.mean.device)
    options = {"whole": card.options, "tap": asdict(tap)}
    return classifier.replace(network=network, card=card.replace(model=f"{TRUNCATED}{card.model}", options=options))


def rebuild(network: nn.Module, model: str, options: Mapping[str, Any], classes: int) -> TruncatedNetwork:
    """Return what `cut` made of a network called `model`, from the options that it wrote on the card."""
    return _cut(bare(network), _tap(options["tap"]), classes, model)


def _tap(written: Mapping[str, Any]) -> Tap:
    return Tap(**{**written, "shape": tuple(written["shape"])})


def _cut(network: nn.Module, tap: Tap, classes: int, model: str) -> TruncatedNetwork:
    return TruncatedNetwork(_body(network, tap, model), tap, classes)


def _body(network: nn.Module, tap: Tap, model: str) -> nn.Module:
    from timm.models import create_feature_extractor

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, about what is rewritten on the way
            traced = create_feature_extractor(network, {tap.path: "features"})
    except Exception as error:  # symbolic tracing runs the network's own code, which may raise anything
        raise ModelError(
            f"{model} cannot be cut at '{tap.name}' ({type(error).__name__}). Use --features pooled, or another model."
        ) from None
    return _only_what_is_needed(traced, traced.eval_graph)


def _only_what_is_needed(root: nn.Module, graph: fx.Graph) -> nn.Module:
    """Return the graph as a module of its own; checks of shapes would keep layers alive that nobody asks for."""
    for node in reversed(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return fx.GraphModule(root, graph)

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
from potstill.models.inspect.forward_trace import ModuleCall, Trace, trace
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, bare
from potstill.models.weights import State

AT = "@"
"""Between a network's name and the layer after which it is truncated: `tf_efficientnet_lite0@blocks.3`."""

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


def cut_at(classifier: Classifier, place: str) -> Classifier:
    """Return `cut` at a layer by name: a module's path such as "blocks.3", or "stage:2" (see `inspect.taps`).

    Raises `ModelError` if the network has no such layer, or cannot be truncated after it.
    """
    (tap,) = resolve(classifier, [place])
    if tap.at == "input" or tap.path in ("", trace(classifier).head.path):
        raise ModelError(
            f"{classifier.card.model}{AT}{place} is the whole network. Use {classifier.card.model}, or truncate it at "
            f"an earlier layer: {', '.join(f'{AT}{stage.name}' for stage in stages(classifier)[:3])}, ..."
        )
    return cut(classifier, tap)


def stages(classifier: Classifier) -> list[Tap]:
    """Return the places at which to truncate a network, from input to output, named by their modules' paths.

    They are the blocks of the list of sibling modules that spans the most resolutions, such as blocks.0 to blocks.6 of
    an EfficientNet or layer1 to layer4 of a ResNet. Empty for a network without such blocks, such as an MLP.
    """
    seen = trace(classifier)
    rows: dict[str, list[ModuleCall]] = {}
    for call in seen.seen:
        if call.end < seen.head.start and _is_block(seen, call):
            rows.setdefault(call.path.rpartition(".")[0], []).append(call)
    best = max(rows.items(), key=lambda row: (_resolutions(row[1]), len(row[1]), -row[0].count(".")), default=None)
    return list(resolve(classifier, [call.path for call in best[1]])) if best else []


def _is_block(seen: Trace, call: ModuleCall) -> bool:
    """Whether a module has submodules and kernels, and outputs a map or tokens."""
    layout = seen.layout(call.shape) if call.shape else None
    deep = next(call.module.children(), None) is not None
    return deep and layout is not None and layout[0] != "vector" and any(p.ndim > 1 for p in call.module.parameters())


def _resolutions(calls: list[ModuleCall]) -> int:
    return len({call.shape[1:] for call in calls if call.shape})


def holds_truncated(state: State) -> bool:
    """Whether a state dict is that of a truncated network: a body and a head, and nothing else."""
    return {name.partition(".")[0] for name in state} == {"body", "head"}


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
            f"{model} cannot be truncated at '{tap.name}' ({type(error).__name__}). Choose another layer "
            "or another model."
        ) from None
    return _without_dead_code(traced, cast(fx.Graph, traced.eval_graph))


def _without_dead_code(root: nn.Module, graph: fx.Graph) -> nn.Module:
    """Return the graph as a module with only the layers it needs; shape assertions would keep others alive."""
    for node in reversed(graph.nodes):
        if node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return fx.GraphModule(root, graph)

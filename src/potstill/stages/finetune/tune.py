"""The last steps of a transfer: unfreeze the chosen part, and train head and backbone at rates of their own."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

from torch import nn

from potstill.models.freeze import frozen_bits, hold_statistics, is_pinned, unfreeze
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.layer_table import freeze_below
from potstill.models.inspect.taps import stages
from potstill.models.outputs import Classifier, bare
from potstill.objectives.objective import Term
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.settings import FinetuneConfig
from potstill.stages.recipe import Views
from potstill.stages.training import TrainingJob, train_classifier


def tune(config: FinetuneConfig, images: Images, classifier: Classifier, folder: Path, *, title: str) -> dict[str, Any]:
    """Train `classifier` in place and save it into `folder`; return what the stage records.

    What is frozen, buffers included, is asserted to be bit for bit what it was.
    """
    network = bare(classifier.network)
    freeze_below(classifier, "all" if config.from_scratch else config.unfreeze)
    if config.fixes_batchnorm:
        hold_statistics(network)
    before, frozen = frozen_bits(network), _frozen(network)
    job = TrainingJob(
        (Term(loss="cross_entropy"),),
        config.train,
        Views(config.augment, seed=config.seed),
        config.seed,
        labelled_share=1.0,
        groups=None if config.from_scratch else lambda c: rates(c, config),
        title=title,
    )
    trained = train_classifier(classifier, images.data, job, folder)
    assert frozen_bits(network) == before, "a frozen layer changed"
    unfreeze(network)
    classifier.eval()
    return {**trained.record, **frozen, "frozen_bits": before}


def _frozen(network: nn.Module) -> dict[str, int]:
    """Return how much of a network learns and how much rests."""
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return {
        "trainable_parameters": learning,
        "frozen_parameters": sum(p.numel() for p in network.parameters()) - learning,
        "norms": len(norms),
        "held_norms": sum(is_pinned(module) for module in norms),
    }


def rates(classifier: Classifier, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return groups of what learns for `engine.fit`: `scale` times the learning rate, norms and biases not decayed.

    The head has `head_rate`; the rate of each stage is `layer_decay` times that of the one above, from train.lr on.
    """
    depth = depths(classifier)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in bare(classifier.network).named_parameters():
        if not parameter.requires_grad:
            continue
        below, decayed = depth[name], parameter.ndim > 1
        scale = config.layer_decay**below if below else config.head_rate
        settings = {"params": [], "scale": scale, "weight_decay": config.train.weight_decay if decayed else 0.0}
        groups.setdefault((below, decayed), settings)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def depths(classifier: Classifier) -> dict[str, int]:
    """Return for each parameter of the bare network how many stages deep it lies: 0 the head, 1 the last stage."""
    seen = trace(classifier)
    ends = [seen.by_path[tap.path].end for tap in stages(seen)]
    found = dict.fromkeys((name for name, _ in bare(classifier.network).named_parameters()), len(ends))
    for s in seen.seen:
        below = 0 if s.module is seen.head.module else max(1, len(ends) - bisect_left(ends, s.start))
        found.update((f"{s.path}.{name}", below) for name in _own(s.module) if s.path)
    return found


def _own(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters(recurse=False)]

"""Fine-tuning: unfreeze the chosen stages, and train head and backbone with separate learning rates."""

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
    """Train `classifier` in place and save it into `folder`; return the record of the stage.

    Asserts that frozen parameters and buffers did not change by a bit.
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
    """Return the number of trainable and frozen parameters and norms."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return {
        "trainable_parameters": trainable,
        "frozen_parameters": sum(p.numel() for p in network.parameters()) - trainable,
        "norms": len(norms),
        "held_norms": sum(is_pinned(module) for module in norms),
    }


def rates(classifier: Classifier, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Return the parameter groups for `engine.fit`: `scale` times the learning rate; no decay of norms and biases.

    The scale of the head is `head_rate`; that of a stage is `layer_decay` times that of the stage above it.
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
    """Return the stage of each parameter of the bare network, counted from the output: 0 the head, 1 the last stage."""
    traced = trace(classifier)
    ends = [traced.by_path[tap.path].end for tap in stages(traced)]
    result = dict.fromkeys((name for name, _ in bare(classifier.network).named_parameters()), len(ends))
    for call in traced.seen:
        below = 0 if call.module is traced.head.module else max(1, len(ends) - bisect_left(ends, call.start))
        result.update((f"{call.path}.{name}", below) for name in _own(call.module) if call.path)
    return result


def _own(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters(recurse=False)]

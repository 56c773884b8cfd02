"""`potstill prune`: remove channels or weights, fine-tune with distillation, evaluate the test split once."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn
from torch.optim.swa_utils import update_bn

from potstill import artifacts, progress
from potstill.compress import prune as pruning
from potstill.compress.prune.inner import Measure
from potstill.config import Bytes, Count
from potstill.errors import ModelError
from potstill.exporters import export_onnx, gate
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from potstill.progress import parts
from potstill.stages import rejection
from potstill.stages.compress.common import (
    CompressConfig,
    CompressionSetup,
    one_target,
    open_model,
    recover,
    teacher_of,
    validation_accuracy,
    warn_of_slow,
)
from potstill.stages.compress.measuring import measured_files
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.target import check_fit
from potstill.training.settings import TrainConfig

MODEL, BEFORE = "model.onnx", "original.onnx"
BYTES = 4  # per parameter in float32
GRADIENT_BATCH = 64
BATCH = 128  # images at most of one pass that updates the statistics of BatchNorm


class PruneConfig(CompressConfig):
    """The target size and the method of pruning. Masks ("unstructured", "n:m") set weights to zero."""

    keep: float | None = Field(default=None, gt=0, lt=1, description="fraction of the multiply-accumulates to keep")
    max_macs: Count | None = Field(default=None, description="maximum number of multiply-accumulates")
    max_params: Count | None = Field(default=None, description="maximum number of parameters")
    max_bytes: Bytes | None = Field(default=None, description="maximum bytes of the weights in float32")
    structure: Literal["inner", "all", "unstructured", "n:m"] = Field(
        default="inner", description="channels inside blocks, all channels, single weights, or n of m weights"
    )
    importance: Literal["l1", "l2", "bn", "taylor"] = Field(default="l1", description="importance score of channels")
    scope: Literal["layer", "global"] = Field(default="layer", description="compare scores per layer or globally")
    round_to: int = Field(default=1, ge=1, description="round widths to multiples of this")
    n: int = Field(default=2, ge=1, description="weights to keep of each m")
    m: int = Field(default=4, ge=2, description="group size of n:m pruning")
    rounds: int = Field(default=1, ge=1, description="number of rounds of pruning and fine-tuning")
    sensitivity: bool = Field(default=False, description="measure the loss of accuracy of pruning each layer alone")
    train: TrainConfig = TrainConfig(epochs=5, optimizer="sgd", lr=0.02, weight_decay=1e-4)

    @model_validator(mode="after")
    def _fits(self) -> PruneConfig:
        if self.structure == "all" and self.importance not in ("l1", "l2"):
            raise ValueError(f"importance must be l1 or l2 with structure 'all', not {self.importance}.")
        if self.structure in ("unstructured", "n:m") and self.rounds > 1:
            raise ValueError(f"rounds must be 1 with structure '{self.structure}', which is pruned once.")
        return self


def prune(config: PruneConfig, folder: Path, *, stores: Path | None = None, command: str = "") -> dict[str, Any]:
    """Write the pruned model into `folder` (an ordinary model, and its ONNX file) and return the summary.

    An interrupted call with the same settings is resumed. stores: folder of the teacher's cached logits.
    """
    return stage(
        "prune",
        config,
        folder,
        lambda journal: _carry_out(config, folder, stores, journal),
        name=folder.name,
        command=command,
    )


def _carry_out(config: PruneConfig, folder: Path, stores: Path | None, journal: Journal) -> dict[str, Any]:
    parts.announce("data", "training", "evaluation")
    setup = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    aim = _aim(config, setup)
    device = check_fit(config.target, _smaller(config, setup, setup.model, *aim, 1), bits=8) if config.target else {}
    export_onnx(setup.model, folder / BEFORE, input=config.input)  # before the work, so that it fails early
    gate.check_float(folder / BEFORE, setup.model, setup.gated)
    rises = _sensitivity(config, setup) if config.sensitivity else {}
    pruned, records = journal.timed(
        "training", "Pruned and fine-tuned", lambda: _rounds(config, setup, aim, folder, stores)
    )
    pruned = Classifier(pruning.finalized(pruned.network), pruned.card).cpu()
    pruned = rejection.with_threshold(pruned, setup.data, setup.precision)
    save_model(pruned, folder)
    export_onnx(pruned, folder / MODEL, input=config.input)
    gate.check_float(folder / MODEL, pruned, setup.gated)
    files = {"original": folder / BEFORE, "pruned": folder / MODEL}
    networks = {"original": setup.model, "pruned": pruned}
    measured = journal.timed(
        "evaluation", "Evaluated the test split once", lambda: measured_files(networks, files, setup, folder)
    )
    warn_of_slow(measured["models"])
    return _summary(setup, pruned, measured["models"], records, rises) | measured | device


def _aim(config: PruneConfig, setup: CompressionSetup) -> tuple[Measure, float]:
    """Return the measure ("macs" or "params") and the fraction of it to keep."""
    if config.structure == "n:m":
        return "params", config.n / config.m
    name, value = one_target(
        keep=config.keep, max_macs=config.max_macs, max_params=config.max_params, max_bytes=config.max_bytes
    )
    if name == "keep":
        return "macs", value
    whole = cost(setup.model.network, setup.example)
    of: Measure = "macs" if name == "max_macs" else "params"
    most = value / BYTES if name == "max_bytes" else value
    share = most / (whole.total_macs if of == "macs" else whole.params)
    if share >= 1:
        raise ModelError(f"{config.model} already meets {name} {value:,}; nothing to prune.")
    return of, share


def _rounds(
    config: PruneConfig, setup: CompressionSetup, aim: tuple[Measure, float], folder: Path, stores: Path | None
) -> tuple[Classifier, list[dict[str, Any]]]:
    """Prune and fine-tune in rounds; return the last model, still with its masks, and a record of each round."""
    of, keep = aim
    teacher = teacher_of(setup, folder, stores)
    model, records = setup.model, []
    for number in range(1, config.rounds + 1):
        inside = folder / f"round-{number}"
        model = _smaller(config, setup, model, of, keep ** (1 / config.rounds), number)
        record = {"validation_pruned": validation_accuracy(model, setup)}
        reestimate(model, setup)
        record["validation_reestimated"] = validation_accuracy(model, setup)
        done = artifacts.finished(inside) is not None
        record |= recover(model, setup, teacher, inside, title=f"Fine-tuning, round {number} of {config.rounds}")
        model = (_loaded(model, inside) if done else model).cpu()
        records.append(record)
    return model, records


def _loaded(model: Classifier, folder: Path) -> Classifier:
    """Return the model with the weights of a finished round."""
    network = copy.deepcopy(model.network)
    network.load_state_dict(zoo.read_state(folder / zoo.WEIGHTS))
    return model.replace(network=network)


def _smaller(
    config: PruneConfig, setup: CompressionSetup, model: Classifier, of: Measure, keep: float, number: int
) -> Classifier:
    network, image = model.network, setup.example
    if config.importance == "taylor":
        _gradients(setup, network)
    if config.structure == "inner":
        smaller = pruning.inner_channels(
            network,
            image,
            keep=keep,
            of=of,
            importance=config.importance,
            scope=config.scope,
            round_to=config.round_to,
        )
    elif config.structure == "all":
        assert config.importance in ("l1", "l2"), "checked by PruneConfig"
        smaller = pruning.all_channels(
            network, image, keep=keep, importance=config.importance, round_to=config.round_to
        )
    elif config.structure == "unstructured":
        smaller = pruning.unstructured(network, sparsity=1 - keep, scope=config.scope)
    else:
        smaller = pruning.n_of_m(network, n=config.n, m=config.m)
    smaller.zero_grad(set_to_none=True)
    pruned = {"structure": config.structure, "importance": config.importance, "keep": round(keep**number, 4), "of": of}
    card = setup.model.card
    return Classifier(smaller, card.replace(compressed={**card.compressed, "pruned": pruned}))


def _gradients(setup: CompressionSetup, network: nn.Module) -> None:
    """Compute the gradients of the loss on held-out images."""
    image, label = setup.held_out
    network.eval().zero_grad()
    network.requires_grad_(True)
    for part, target in zip(image.split(GRADIENT_BATCH), torch.from_numpy(label).split(GRADIENT_BATCH), strict=True):
        F.cross_entropy(network(part), target).backward()


def reestimate(model: Classifier, setup: CompressionSetup) -> None:
    """Re-estimate the BatchNorm statistics on training images, in parts of equal size, which `update_bn` averages."""
    images = setup.calibration.to(model.mean.device)
    with torch.no_grad():
        update_bn(images.tensor_split(math.ceil(len(images) / BATCH)), model.network)
    model.eval()


def _sensitivity(config: PruneConfig, setup: CompressionSetup) -> dict[str, dict[float, float]]:
    if config.importance == "taylor":
        _gradients(setup, setup.model.network)
    progress.note("Measuring the sensitivity of each layer on validation images; this takes a while.")
    return pruning.sensitivity(setup.model.network, setup.example, setup.loss, importance=config.importance)


def _summary(
    setup: CompressionSetup,
    pruned: Classifier,
    models: dict[str, Any],
    records: list[dict[str, Any]],
    rises: dict[str, dict[float, float]],
) -> dict[str, Any]:
    widths = {
        name: list(layer.weight.shape[:2])
        for name, layer in pruned.network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    return {
        "data": setup.facts,
        "teacher": setup.teacher_name,
        "models": models,
        "speed_up": round(models["original"]["latency_ms"] / models["pruned"]["latency_ms"], 3),
        "sparsity": round(pruning.sparsity_of(pruned.network), 4),
        "widths": widths,
        "rounds": records,
        "sensitivity": rises,
    }

"""`potstill prune`: channels or weights taken out, the rest trained back with the teacher, the test split once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn
from torch.optim.swa_utils import update_bn

from potstill import artifacts, progress
from potstill.compress import prune as pruning
from potstill.errors import ModelError
from potstill.exporters import export_onnx
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from potstill.report.sensitivity import write_sensitivity
from potstill.stages.compress.common import (
    CompressConfig,
    Given,
    measured_files,
    one_target,
    open_model,
    recover,
    teacher_of,
    validation_accuracy,
    warn_of_slow,
)
from potstill.stages.run_folder import Journal
from potstill.stages.stage import SUMMARY, stage
from potstill.training.settings import TrainConfig

MODEL, BEFORE = "model.onnx", "original.onnx"
BYTES = 4  # of a parameter in float32
GRADIENT_BATCH = 64


class PruneConfig(CompressConfig):
    """How much remains, of what, and chosen how. Masks ("unstructured", "n:m") leave zeros, not fewer channels."""

    keep: float | None = Field(default=None, gt=0, lt=1, description="share of the multiply-accumulates that remains")
    max_macs: int | None = Field(default=None, ge=1)
    max_params: int | None = Field(default=None, ge=1)
    max_bytes: int | None = Field(default=None, ge=1, description="of the weights in float32")
    structure: Literal["inner", "all", "unstructured", "n:m"] = "inner"
    importance: Literal["l1", "l2", "bn", "taylor"] = "l1"
    scope: Literal["layer", "global"] = "layer"
    round_to: int = Field(default=1, ge=1, description="widths become multiples of this")
    n: int = Field(default=2, ge=1)
    m: int = Field(default=4, ge=2)
    rounds: int = Field(default=1, ge=1, description="prune and train back in so many equal parts")
    sensitivity: bool = Field(default=False, description="measure what pruning each layer alone costs")
    train: TrainConfig = TrainConfig(epochs=5, optimizer="sgd", lr=0.02, weight_decay=1e-4)

    @model_validator(mode="after")
    def _fits(self) -> PruneConfig:
        if self.structure == "all" and self.importance not in ("l1", "l2"):
            raise ValueError(f"importance {self.importance} is for inner channels; structure 'all' takes l1 or l2.")
        if self.structure in ("unstructured", "n:m") and self.rounds > 1:
            raise ValueError("rounds are for channels; masks are made once.")
        return self


def prune(config: PruneConfig, folder: Path, *, stores: Path | None = None, command: str = "") -> dict[str, Any]:
    """Write the pruned model into `folder` (an ordinary model, and its ONNX file) and return the summary.

    What was begun in `folder` with the same settings goes on. stores: where the teacher's answers are kept.
    """
    return stage(
        "prune",
        config,
        folder,
        lambda journal: _carry_out(config, folder, stores, journal),
        name=folder.name,
        command=command,
        report=_draw_sensitivity,
    )


def _draw_sensitivity(folder: Path) -> None:
    rises = artifacts.read_json(folder / SUMMARY)["sensitivity"]
    if rises:
        layers = {name: {float(share): rise for share, rise in of.items()} for name, of in rises.items()}
        write_sensitivity(layers, folder / "sensitivity.svg")


def _carry_out(config: PruneConfig, folder: Path, stores: Path | None, journal: Journal) -> dict[str, Any]:
    given = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    aim = _aim(config, given)
    export_onnx(given.model, folder / BEFORE)  # what cannot be exported is told before the work
    rises = _sensitivity(config, given) if config.sensitivity else {}
    pruned, records = journal.timed(
        "training", "Pruned and fine-tuned", lambda: _rounds(config, given, aim, folder, stores)
    )
    pruned = Classifier(pruning.finalized(pruned.network), pruned.card)
    save_model(pruned, folder)
    export_onnx(pruned, folder / MODEL)
    files = {"original": folder / BEFORE, "pruned": folder / MODEL}
    networks = {"original": given.model, "pruned": pruned}
    figures = journal.timed(
        "evaluation", "Opened the test split, once", lambda: measured_files(networks, files, given, folder)
    )
    warn_of_slow(figures)
    return _summary(given, pruned, figures, records, rises)


def _aim(config: PruneConfig, given: Given) -> tuple[str, float]:
    """Return what is measured ("macs" or "params") and the share of it that may remain."""
    if config.structure == "n:m":
        return "params", config.n / config.m
    name, value = one_target(
        keep=config.keep, max_macs=config.max_macs, max_params=config.max_params, max_bytes=config.max_bytes
    )
    if name == "keep":
        return "macs", value
    whole = cost(given.model.network, given.example)
    of, most = {
        "max_macs": ("macs", value),
        "max_params": ("params", value),
        "max_bytes": ("params", value / BYTES),
    }[name]
    share = most / (whole.total_macs if of == "macs" else whole.params)
    if share >= 1:
        raise ModelError(f"{config.model} is that small already: {name} {value:,} asks for nothing to be removed.")
    return of, share


def _rounds(
    config: PruneConfig, given: Given, aim: tuple[str, float], folder: Path, stores: Path | None
) -> tuple[Classifier, list[dict[str, Any]]]:
    """Prune and train back, in equal parts; return the last model, its masks still on, and a record a round."""
    of, keep = aim
    teacher = teacher_of(given, folder, stores)
    model, records = given.model, []
    for number in range(1, config.rounds + 1):
        inside = folder / f"round-{number}"
        model = _smaller(config, given, model, of, keep ** (1 / config.rounds), number)
        record = {"validation_pruned": validation_accuracy(model, given)}
        reestimate(model, given)
        record["validation_reestimated"] = validation_accuracy(model, given)
        done = artifacts.finished(inside) is not None
        record |= recover(model, given, teacher, inside, title=f"pruned, round {number} of {config.rounds}")
        if done:
            model = _loaded(model, inside)
        records.append(record)
    return model, records


def _loaded(model: Classifier, folder: Path) -> Classifier:
    """Return the model with the weights of a round that was done earlier."""
    network = copy.deepcopy(model.network)
    network.load_state_dict(zoo.read_state(folder / zoo.WEIGHTS))
    return model.replace(network=network)


def _smaller(config: PruneConfig, given: Given, model: Classifier, of: str, keep: float, number: int) -> Classifier:
    network, image = model.network, given.example
    if config.importance == "taylor":
        _gradients(given, network)
    if config.structure == "inner":
        smaller = pruning.inner_channels(
            network, image, keep=keep, of=of, importance=config.importance, scope=config.scope,
            round_to=config.round_to,
        )  # fmt: skip
    elif config.structure == "all":
        smaller = pruning.all_channels(
            network, image, keep=keep, importance=config.importance, round_to=config.round_to
        )
    elif config.structure == "unstructured":
        smaller = pruning.unstructured(network, sparsity=1 - keep, scope=config.scope)
    else:
        smaller = pruning.n_of_m(network, n=config.n, m=config.m)
    smaller.zero_grad(set_to_none=True)
    pruned = {"structure": config.structure, "importance": config.importance, "keep": round(keep**number, 4), "of": of}
    card = given.model.card
    return Classifier(smaller, card.replace(compressed={**card.compressed, "pruned": pruned}))


def _gradients(given: Given, network: nn.Module) -> None:
    """Leave the gradients of the loss on held-out images in the parameters."""
    image, label = given.held_out
    network.eval().zero_grad()
    network.requires_grad_(True)
    for part, answer in zip(image.split(GRADIENT_BATCH), torch.from_numpy(label).split(GRADIENT_BATCH), strict=True):
        F.cross_entropy(network(part), answer).backward()


def reestimate(model: Classifier, given: Given) -> None:
    """Measure the means and variances of BatchNorm anew, on training images."""
    with torch.no_grad():
        update_bn(given.calibration.to(model.mean.device).split(128), model.network)
    model.eval()


def _sensitivity(config: PruneConfig, given: Given) -> dict[str, dict[float, float]]:
    if config.importance == "taylor":
        _gradients(given, given.model.network)
    progress.note("Each layer is pruned alone and judged on validation images; this takes a while.")
    return pruning.sensitivity(given.model.network, given.example, given.loss, importance=config.importance)


def _summary(
    given: Given, pruned: Classifier, models: dict[str, Any], records: list[dict[str, Any]],
    rises: dict[str, dict[float, float]],
) -> dict[str, Any]:  # fmt: skip
    widths = {
        name: list(layer.weight.shape[:2])
        for name, layer in pruned.network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    return {
        "data": given.facts,
        "teacher": given.teacher_name,
        "models": models,
        "speed_up": round(models["original"]["latency_ms"] / models["pruned"]["latency_ms"], 3),
        "sparsity": round(pruning.sparsity_of(pruned.network), 4),
        "widths": widths,
        "rounds": records,
        "sensitivity": rises,
    }

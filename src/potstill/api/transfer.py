"""Verbs that make and use teachers: finetune, selftrain, label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from potstill import distributed
from potstill.api.keywords import settings_of
from potstill.api.results import FinetuneResult, LabelResult, SelftrainResult
from potstill.api.verb import built, last_name, shared_folder, verb
from potstill.errors import ConfigError
from potstill.scheduling import opened
from potstill.stages.finetune import FinetuneConfig
from potstill.stages.finetune import finetune as finetune_stage
from potstill.stages.label import LabelConfig, run_label
from potstill.stages.selftrain import SelftrainConfig
from potstill.stages.selftrain import selftrain as selftrain_stage

Settings = Mapping[str, Any]


@verb
def finetune(
    data: str | Path | Settings,
    *,
    model: str | Path | Sequence[str | Path],
    weights: str | Path | None = None,
    options: Settings | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    from_scratch: bool | None = None,
    size: int | None = None,
    fit: Literal["crop", "letterbox", "stretch"] | None = None,
    augment: str | Sequence[Any] | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    features: str | None = None,
    views: int | None = None,
    penalty: float | None = None,
    folds: int | None = None,
    unfreeze: Literal["none", "all"] | int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    head_rate: float | None = None,
    layer_decay: float | None = None,
    batchnorm: Literal["auto", "fixed", "adapted"] | None = None,
    ema: float | None = None,
    patience: int | None = None,
    train: Settings | None = None,
    select: Literal["last", "best", "balanced"] | None = None,
    balance: Literal["none", "sqrt", "full", "logit-adjust"] | None = None,
    seed: int | None = None,
    reject: str | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> FinetuneResult:
    """Fit a pretrained network to your images: a linear probe on its features, then fine-tuning (docs/finetuning.md).

    Args:
        data: a folder, archive or array file, 'digits', or settings such as {"path": "photos", "limit": 500}.
        model: a name, or the folder of a stage whose network is reused; of several, the one whose probe classifies most
            held-out training images correctly. options: of the architecture.
        weights: a file, "package:NAME", "hub" for the published ones, or "auto" (the default: the model's package if it
            is installed, else the hub). from_scratch: ignore weights, for comparison.
        mean, std: normalisation of images in 0..1 that weights without a card were trained with, one value a channel.
        size, limit, augment: pixels a side; images used, stratified; augmentation policy.
        fit: "crop", "letterbox" (whole, on grey) or "stretch": how photos of another shape are made square.
        group: which images stay in one split and fold: a pattern of paths, "near-copies" or "exif" (docs/data.md).
        test_from: what becomes the test split if the data have none: "train", "val" or "none".
        features, views, penalty, folds: of the probe: its layer, augmented views, L2 penalty, cross-validation folds.
        unfreeze: "none", "all", or how many of the last stages are trained.
        epochs, batch_size, lr, ema, patience, select: of fine-tuning; train: its other settings.
        balance: weights or adjusted logits of fine-tuning for classes of unequal size (docs/recipes.md).
        head_rate, layer_decay: learning rate of the head times lr; decay of the rate per stage.
        batchnorm: "fixed" keeps its statistics, "adapted" updates them. seed: the random seed.
        out: the folder (default: a new one under runs/). reject: "precision>=0.99" to guarantee (docs/export.md).
    """
    config = built(FinetuneConfig, settings_of("finetune", locals()))
    folder = shared_folder(f"finetune-{last_name(config.data.path)}", "finetune", config, out)
    return FinetuneResult(finetune_stage(config, folder, command=command), folder)


@verb
def selftrain(
    data: str | Path | Settings,
    *,
    unlabelled: str | Path | None = None,
    teacher: str | Path | Sequence[str | Path] | None = None,
    teacher_weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    fit: Literal["crop", "letterbox", "stretch"] | None = None,
    teachers: Sequence[Settings] | None = None,
    transfer: Settings | None = None,
    folds: int | None = None,
    student: str | Settings | None = None,
    large: str | Settings | None = None,
    rounds: int | None = None,
    labels: int | None = None,
    method: Literal["teachers", "fixmatch", "freematch"] | None = None,
    threshold: float | None = None,
    labelling: Literal["soft", "hard"] | None = None,
    corrections: str | Path | None = None,
    min_confidence: float | None = None,
    quota: int | None = None,
    copies: int | None = None,
    max_distance: float | None = None,
    unlabelled_weight: float | None = None,
    noise: str | Sequence[Any] | None = None,
    teacher_noise: str | Sequence[Any] | None = None,
    large_noise: str | Sequence[Any] | None = None,
    clean: float | None = None,
    steps: int | None = None,
    teacher_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    train: Settings | None = None,
    crossfit: bool | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    to_review: int | None = None,
    name: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> SelftrainResult:
    """Train on labelled and unlabelled images, and keep the model without the latter where they did not help.

    data, unlabelled: images, and more without labels; those of `data` without a label are used too. teacher: one or
    several names, folders or ONNX files; teacher_weights, mean, std, size: pretrained weights of those given by name,
    their normalisation and input size; teachers: the same as settings. student, large: the network to keep, and a
    larger one for the rounds. workers, ray, gpus: as in `run`. The others are documented in docs/selftrain.md.
    """
    config = _selftrain_config(locals())
    folder = shared_folder(config.name, "selftrain", config, out)
    with opened(workers=workers, ray=ray, gpus=gpus) as scheduler:
        return SelftrainResult(selftrain_stage(config, folder, command=command, scheduler=scheduler), folder)


def _selftrain_config(keywords: dict[str, Any]) -> SelftrainConfig:
    card = {key: keywords.pop(key) for key in CARD}
    card["size"] = None if card["size"] is None else (card["size"],) * 2
    listed = _teachers(keywords.pop("teacher"), keywords.pop("teacher_weights"), card)
    if listed and keywords["teachers"]:
        raise ConfigError("teacher and teachers are both given. Give each teacher once.")
    settings = settings_of("selftrain", keywords | ({"teachers": listed} if listed else {}))
    settings.setdefault("name", f"selftrain-{last_name(settings['data'].get('path', ''))}")
    return built(SelftrainConfig, settings)


CARD = ("mean", "std", "size")
"""Keywords of selftrain that describe the weights of its teachers."""


def _teachers(
    teacher: str | Path | Sequence[str | Path] | None, weights: str | Path | None, card: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the settings of each teacher; the weights belong to those that are names."""
    given = {key: value for key, value in card.items() if value is not None}
    if given and weights is None:
        raise ConfigError("--mean, --std and --size describe pretrained weights: give these with --teacher-weights.")
    if weights is not None and teacher is None:
        raise ConfigError("--teacher-weights needs the name of the network they belong to: --teacher NAME.")
    names = [] if teacher is None else [teacher] if isinstance(teacher, str | Path) else list(teacher)
    pretrained = {} if weights is None else {"weights": str(weights), **({"card": given} if given else {})}
    return [{"model": str(name), **({} if Path(name).exists() else pretrained)} for name in names]


@verb
def label(
    data: str | Path | Settings,
    *,
    teacher: str | Path | Settings,
    teacher_weights: str | Path | None = None,
    views: int | None = None,
    top_k: int | None = None,
    augment: str | Sequence[Any] | None = None,
    fit: Literal["crop", "letterbox", "stretch"] | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    to_review: int | None = None,
    seed: int | None = None,
    part: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> LabelResult:
    """Write a teacher's soft labels of every training image into a folder, for any number of students.

    Args:
        data: a folder, archive or array file, 'digits', or settings.
        teacher: a name, a run or stage folder, an ONNX file, or settings. teacher_weights: a file, for a name.
        views, augment: augmented views of each image, and their policy. top_k: classes kept of each output.
        fit: "crop", "letterbox" or "stretch": how photos of another shape are made square.
        limit: images used, stratified. group: which images stay in one split (docs/data.md). seed: of the views.
        test_from: what becomes the test split if the data have none.
        to_review: images to propose for labelling by hand.
        part: "I/N" labels the I-th of N parts; N commands with the same `out` make one store, which the last completes.
        workers, ray, gpus: processes at a time; a Ray cluster; share of a GPU each takes (docs/scaling.md).
        out: the folder, which `distill` takes as teacher= (default: a new one under runs/).
    """
    config = built(LabelConfig, settings_of("label", locals()))
    stripe = None if part is None else _stripe(part, out, parallel=(workers or 1) > 1 or ray is not None)
    folder = shared_folder(f"label-{last_name(config.data.path)}", "label", config, out)
    with opened(workers=workers, ray=ray, gpus=gpus) as scheduler:
        return LabelResult(run_label(config, folder, part=stripe, command=command, scheduler=scheduler), folder)


def _stripe(part: str, out: str | Path | None, *, parallel: bool) -> tuple[int, int]:
    """Return (index from 0, count) of "I/N"."""
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part {part} must be I/N with I from 1 to N, such as 2/8: the second of eight parts.")
    if out is None:
        raise ConfigError("--part needs the folder that all parts share: --out FOLDER.")
    if parallel or distributed.world() > 1:
        raise ConfigError("--part labels one part in this process: leave out --workers, --ray and torchrun.")
    return int(number) - 1, int(count)

"""The command that fits a pretrained network: finetune."""

from __future__ import annotations

from typing import Annotated, Any

from potstill.cli.common import call
from potstill.cli.options import (
    Balance,
    Data,
    Fit,
    Group,
    Json,
    Limit,
    Mean,
    Out,
    Quiet,
    Reject,
    Select,
    Std,
    TestFrom,
    option,
)

NETWORK, IMAGES, PROBE, TUNING = "Networks", "Images", "Probe", "Fine-tuning"


def stages(text: str) -> str | int:
    """Return none, all, or a number of stages."""
    return int(text) if text.isdigit() else text


def finetune(
    data: Data,
    model: Annotated[
        list[str],
        option(NETWORK, "A name (NAME@LAYER is truncated) or a stage folder; of several, the best."),
    ],
    weights: Annotated[str | None, option(NETWORK, "A file, package:NAME, hub or auto (default).")] = None,
    mean: Mean = None,
    std: Std = None,
    from_scratch: Annotated[
        bool, option(NETWORK, "Ignore weights: for comparison.", "--from-scratch", rare=True)
    ] = False,
    size: Annotated[int | None, option(IMAGES, "Pixels a side (default: the network's own).")] = None,
    fit: Fit = None,
    augment: Annotated[str | None, option(IMAGES, "Augmentation policy, or none (default: auto).")] = None,
    limit: Limit = None,
    group: Group = None,
    test_from: TestFrom = None,
    features: Annotated[str | None, option(PROBE, "Its layer; auto tries several (default: pooled).")] = None,
    views: Annotated[int | None, option(PROBE, "Augmented views of each image (default: 8).")] = None,
    penalty: Annotated[
        float | None, option(PROBE, "L2 penalty of the probe (default: cross-validated).", rare=True)
    ] = None,
    folds: Annotated[int | None, option(PROBE, "Cross-validation folds (default: 5).", rare=True)] = None,
    unfreeze: Annotated[Any, option(TUNING, "none, all (default), or a number of last stages.", parser=stages)] = None,
    epochs: Annotated[int | None, option(TUNING, "Epochs (default: 10).")] = None,
    batch_size: Annotated[int | None, option(TUNING, "Batch size (default: 32).")] = None,
    lr: Annotated[float | None, option(TUNING, "Peak learning rate (default: 0.0001).")] = None,
    head_rate: Annotated[
        float | None, option(TUNING, "Learning rate of the head, times --lr (default: 1).", rare=True)
    ] = None,
    layer_decay: Annotated[
        float | None, option(TUNING, "Layer-wise learning-rate decay per stage (default: 0.75).", rare=True)
    ] = None,
    batchnorm: Annotated[
        str | None,
        option(TUNING, "fixed keeps its statistics, adapted updates them (default: by batch size).", rare=True),
    ] = None,
    ema: Annotated[
        float | None, option(TUNING, "Decay of the averaged weights, 0 for none (default: 0.999).", rare=True)
    ] = None,
    patience: Annotated[
        int | None,
        option(TUNING, "Epochs without improvement, after the warm-up (default: 5).", rare=True),
    ] = None,
    select: Select = None,
    balance: Balance = None,
    seed: Annotated[int | None, option(TUNING, "Random seed.")] = None,
    reject: Reject = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a pretrained network to your images. First a linear probe on its features, then fine-tuning.

    Fine-tuning is kept only if it beats the probe on validation.
    """
    call("finetune", locals(), trains=True)

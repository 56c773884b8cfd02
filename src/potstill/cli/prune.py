"""The command that prunes a model: prune."""

from __future__ import annotations

from typing import Annotated

from potstill.cli.common import call
from potstill.cli.options import (
    BatchSize,
    Epochs,
    Group,
    Input,
    Json,
    LearningRate,
    Limit,
    Network,
    Out,
    Quiet,
    Reject,
    Retrainer,
    RunData,
    Seed,
    Target,
    TeacherWeights,
    TestFrom,
    TrainImages,
    Weights,
    option,
)

TARGET, PRUNING = "Target (exactly one)", "Pruning"


def prune(
    model: Network,
    keep: Annotated[float | None, option(TARGET, "Share of the multiply-accumulates that remains, 0 to 1.")] = None,
    max_macs: Annotated[str | None, option(TARGET, "Maximum multiply-accumulates per image, such as 20M.")] = None,
    max_params: Annotated[str | None, option(TARGET, "Maximum number of parameters, such as 70k.")] = None,
    max_bytes: Annotated[str | None, option(TARGET, "Maximum bytes of weights in float32, such as 300kB.")] = None,
    structure: Annotated[
        str | None, option(PRUNING, "inner (channels inside blocks), all (torch-pruning), unstructured, n:m.")
    ] = None,
    importance: Annotated[str | None, option(PRUNING, "l1, l2, bn or taylor.")] = None,
    scope: Annotated[str | None, option(PRUNING, "layer: the same share everywhere; global: compare layers.")] = None,
    round_to: Annotated[int | None, option(PRUNING, "Round widths to multiples of this.", rare=True)] = None,
    rounds: Annotated[int | None, option(PRUNING, "Prune and fine-tune in this many rounds.")] = None,
    sensitivity: Annotated[bool, option(PRUNING, "Measure the loss of pruning each layer.", "--sensitivity")] = False,
    data: RunData = None,
    limit: Limit = None,
    group: Group = None,
    test_from: TestFrom = None,
    weights: Weights = None,
    teacher: Retrainer = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    images: TrainImages = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    seed: Seed = None,
    reject: Reject = None,
    target: Target = None,
    input: Input = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prune channels, then fine-tune with distillation."""
    call("prune", locals(), trains=True)

"""The command that quantizes a model: quantize."""

from __future__ import annotations

from typing import Annotated

from potstill.cli.common import call
from potstill.cli.options import (
    BatchSize,
    Calibration,
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

BITS, METHOD, SIMULATION = "Bits", "Method", "Simulation"


def quantize(
    model: Network,
    weight_bits: Annotated[int | None, option(BITS, "Bits of weights, 2 to 8 (default: 8).")] = None,
    activation_bits: Annotated[int | None, option(BITS, "Bits of activations, 2 to 8 (default: 8).")] = None,
    first_last_bits: Annotated[
        int | None, option(BITS, "Bits of the first and last layer (default: 8).", rare=True)
    ] = None,
    max_bytes: Annotated[
        str | None, option(BITS, "Size of each file, such as 300kB; bits then differ by layer.")
    ] = None,
    mode: Annotated[str | None, option(METHOD, "ptq: after training (default); qat: with training.")] = None,
    calibrate: Annotated[
        str | None, option(METHOD, "minmax, percentile, mse or entropy (default: auto).", rare=True)
    ] = None,
    calibration: Calibration = None,
    rounding: Annotated[
        str | None, option(METHOD, "nearest or reconstruct, block by block (default: auto, reconstruct below 8 bits).")
    ] = None,
    equalize: Annotated[
        bool, option(METHOD, "Equalize the weights of neighbouring layers.", "--equalize", rare=True)
    ] = False,
    weight_format: Annotated[
        str | None, option(SIMULATION, "With --simulate: format of the weights, such as fixed4.4 or e4m3.")
    ] = None,
    activation_format: Annotated[
        str | None, option(SIMULATION, "With --simulate: format of the inputs of layers, such as e5m2.")
    ] = None,
    simulate: Annotated[
        bool, option(SIMULATION, "Measure a number format; no file in it is written.", "--simulate")
    ] = False,
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
    """Quantize weights and activations to 2-8 bits."""
    call("quantize", locals(), trains=True)

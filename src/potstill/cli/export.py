"""The command that writes files for devices: export."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from potstill.cli.common import call
from potstill.cli.options import (
    Calibration,
    Input,
    Json,
    Limit,
    Network,
    Out,
    Quiet,
    Reject,
    RunData,
    Target,
    Weights,
    names,
)


def export(
    model: Network,
    to: Annotated[
        Any,
        typer.Option(help="onnx, tflite, c, openvino, executorch; several with commas. ONNX always is.", parser=names),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Write an 8-bit copy.")] = True,
    tflite_type: Annotated[
        str | None, typer.Option(help="Image and result of the 8-bit .tflite file: uint8 (default) or int8.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities/--logits", help="Calibrated probabilities as the result of .tflite files.")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="Operator set of the ONNX file (default: 20).")] = None,
    calibration: Calibration = None,
    prefer: Annotated[str | None, typer.Option(help="Recommend by speed (default) or bytes.")] = None,
    golden: Annotated[
        int | None, typer.Option(help="Reference images with expected outputs to include (default: 8).")
    ] = None,
    data: RunData = None,
    limit: Limit = None,
    weights: Weights = None,
    reject: Reject = None,
    target: Target = None,
    input: Input = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the files a device needs, and measure each. All of them go into one folder."""
    call("export", locals(), trains=True)

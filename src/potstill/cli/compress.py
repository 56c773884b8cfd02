"""Commands that make a model smaller: prune, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import Json, Out, Weights, app, carry_out, given

Model = Annotated[str, typer.Argument(help="A run or stage folder, or a name with --weights.")]
Data = Annotated[str | None, typer.Option("--data", help="The images (default: those of the run).")]
Limit = Annotated[int | None, typer.Option(help="Use about this many images, the same share of each class.")]
Teacher = Annotated[
    str | None, typer.Option(help="Who teaches (default: the run's teacher, else the model as it was), or 'none'.")
]
TeacherWeights = Annotated[Path | None, typer.Option(help="Weights for a teacher given by name.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of training back.")]
Images = Annotated[int | None, typer.Option(help="Train on so many images instead of epochs.")]
Lr = Annotated[float | None, typer.Option(help="Highest learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the order of images.")]


@app.command()
def prune(
    model: Model,
    keep: Annotated[float | None, typer.Option(help="Share of the multiply-accumulates that remains, 0 to 1.")] = None,
    max_macs: Annotated[int | None, typer.Option(help="At most so many multiply-accumulates an image.")] = None,
    max_params: Annotated[int | None, typer.Option(help="At most so many parameters.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="At most so many bytes of weights in float32.")] = None,
    structure: Annotated[
        str | None,
        typer.Option(help="inner (channels inside blocks), all (with torch-pruning), unstructured, n:m."),
    ] = None,
    importance: Annotated[str | None, typer.Option(help="l1, l2, bn or taylor.")] = None,
    scope: Annotated[str | None, typer.Option(help="layer: the same share everywhere; global: compare layers.")] = None,
    round_to: Annotated[int | None, typer.Option(help="Widths become multiples of this.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Prune and train back in so many parts.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Measure what each layer alone costs.")] = False,
    data: Data = None,
    limit: Limit = None,
    weights: Weights = None,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    images: Images = None,
    lr: Lr = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Take channels out of a model and train the rest back with the teacher."""
    settings = _shared(data, limit, weights, teacher, teacher_weights, epochs, images, lr, seed) | {
        "keep": keep,
        "max_macs": max_macs,
        "max_params": max_params,
        "max_bytes": max_bytes,
        "structure": structure,
        "importance": importance,
        "scope": scope,
        "round_to": round_to,
        "rounds": rounds,
        "sensitivity": sensitivity or None,
    }
    _show("prune", model, out, settings, as_json)


@app.command()
def quantize(
    model: Model,
    weight_bits: Annotated[int | None, typer.Option(help="Bits of a weight, 2 to 8 (default: 8).")] = None,
    activation_bits: Annotated[int | None, typer.Option(help="Bits of an activation, 2 to 8 (default: 8).")] = None,
    first_last_bits: Annotated[int | None, typer.Option(help="Bits of the first and last layer (default: 8).")] = None,
    mode: Annotated[str, typer.Option(help="ptq: after training; qat: with training.")] = "ptq",
    calibrate: Annotated[str | None, typer.Option(help="minmax, percentile, mse or entropy.")] = None,
    calibration: Annotated[int | None, typer.Option(help="How many training images calibrate.")] = None,
    equalize: Annotated[bool, typer.Option("--equalize", help="Equalize the weights of neighbouring layers.")] = False,
    max_bytes: Annotated[int | None, typer.Option(help="Size of the packed file; bits then differ by layer.")] = None,
    weight_format: Annotated[
        str | None, typer.Option(help="With --simulate: format of the weights, such as fixed4.4 or e4m3.")
    ] = None,
    activation_format: Annotated[
        str | None, typer.Option(help="With --simulate: format of the inputs of layers, such as e5m2.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Measure a number format; no file in it is written.")
    ] = False,
    data: Data = None,
    limit: Limit = None,
    weights: Weights = None,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    images: Images = None,
    lr: Lr = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Give a model's weights and activations fewer bits."""
    settings = _shared(data, limit, weights, teacher, teacher_weights, epochs, images, lr, seed) | {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "first_last_bits": first_last_bits,
        "mode": mode,
        "calibrate": calibrate,
        "calibration": calibration,
        "equalize": equalize or None,
        "max_bytes": max_bytes,
        "weight_format": weight_format,
        "activation_format": activation_format,
        "simulate": simulate or None,
    }
    _show("quantize", model, out, settings, as_json)


def _shared(
    data: str | None, limit: int | None, weights: Path | None, teacher: str | None, teacher_weights: Path | None,
    epochs: int | None, images: int | None, lr: float | None, seed: int | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "data": {"path": data, "limit": limit},
        "weights": str(weights) if weights else None,
        "teacher": teacher,
        "teacher_weights": str(teacher_weights) if teacher_weights else None,
        "train": {"epochs": epochs, "lr": lr},
        "images": images,
        "seed": seed,
    }


def _show(kind: str, model: str, out: Path | None, settings: dict[str, Any], as_json: bool) -> None:
    def work() -> dict[str, Any]:
        from potstill import api as public

        return getattr(public, kind)(model, out=out, **given(settings))

    def show(result: dict[str, Any]) -> None:
        from potstill.cli import show

        show.compression(result)

    carry_out(work, show, as_json)

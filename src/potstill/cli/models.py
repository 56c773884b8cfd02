"""Commands that list networks and their layers: models, layers."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet, option

COST = "Cost of one model, by its name, folder or ONNX file"


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern: 'resnet*', 'NAME@*'.")] = "builtin:*",
    most: Annotated[int, typer.Option(help="Maximum number to list.")] = 40,
    bits: Annotated[int | None, option(COST, "Bits of the weights, 2 to 8; 32: float (default: 8).")] = None,
    size: Annotated[int | None, option(COST, "Side of its images in pixels.")] = None,
    classes: Annotated[int | None, option(COST, "Number of classes.")] = None,
    time: Annotated[bool, option(COST, "Measure its latency here.", "--time")] = False,
    device: Annotated[str | None, option(COST, "Profile of a device, to which latency is scaled.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List models with size, MACs and accuracy, or the cost of one."""
    call("models", locals())


def layers(
    model: Annotated[str, typer.Argument(help="A model's name, or a run or stage folder.")],
    depth: Annotated[int, typer.Option(help="Levels of nested modules to show.")] = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the layers of a model: where features can be taken."""
    call("layers", locals())

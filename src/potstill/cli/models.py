"""Commands that list networks and their layers: models, layers."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern: 'resnet*', 'NAME@*'.")] = "builtin:*",
    most: Annotated[int, typer.Option(help="Maximum number to list.")] = 40,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List models with parameters, 8-bit size, MACs and accuracy."""
    call("models", locals())


def layers(
    model: Annotated[str, typer.Argument(help="A model's name, or a run or stage folder.")],
    depth: Annotated[int, typer.Option(help="Levels of nested modules to show.")] = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the layers of a model: where features can be taken."""
    call("layers", locals())

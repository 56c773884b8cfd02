"""The command that classifies images: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Classes, Force, Json, Model, Quiet, Weights


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched with all below.")],
    weights: Weights = None,
    classes: Classes = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV of the answers: path, class, probability.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Classify images."""
    call("predict", locals())

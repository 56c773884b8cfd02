"""The command that shows what distillation transfers: explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import (
    NETWORKS,
    Classes,
    Force,
    Json,
    Limit,
    Model,
    Quiet,
    Split,
    TeacherWeights,
    Weights,
    option,
)


def explain(
    model: Model,
    image_or_data: Annotated[str, typer.Argument(help="An image; or labelled images, with --teacher.")],
    temperature: Annotated[
        list[float] | None, typer.Option(help="Softmax temperature; may be repeated (default: 1, 2 and 4).")
    ] = None,
    teacher: Annotated[str | None, option(NETWORKS, "The teacher, shown beside the model.")] = None,
    control: Annotated[str | None, option(NETWORKS, "A model that was trained without the teacher.")] = None,
    weights: Weights = None,
    teacher_weights: TeacherWeights = None,
    classes: Classes = None,
    split: Split = "test",
    limit: Limit = None,
    html: Annotated[Path | None, typer.Option(help="Write a page, for a data set.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare the probabilities of a model and its teacher. Of an image at several temperatures, or over a data set."""
    call("explain", locals())

"""The command that carries out a recipe: run."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Gpus, Json, Out, Overrides, Quiet, Ray, Workers


def run(
    recipe: Annotated[str, typer.Argument(help="A YAML recipe, or the name of an experiment (potstill recipes).")],
    overrides: Overrides = None,
    budget: Annotated[str | None, typer.Option(help="Of an experiment: quick (default) or full.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write its pages below docs/experiments.")] = False,
    allow_code: AllowCode = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Carry out a recipe or an experiment, or resume it. The same command resumes an interrupted run."""
    call("run", locals(), trains=True)

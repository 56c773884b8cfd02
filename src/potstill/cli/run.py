"""The command that carries out a recipe: run."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Gpus, Json, Out, Overrides, Quiet, Ray, Recipe, Workers


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    allow_code: AllowCode = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Carry out a recipe, or resume it. The same command resumes an interrupted run."""
    call("run", locals(), trains=True)

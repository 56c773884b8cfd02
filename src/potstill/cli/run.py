"""The command that carries out a recipe: run."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Json, Out, Overrides, Quiet, Recipe


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    allow_code: AllowCode = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Carry out a recipe, or resume it. The same command resumes an interrupted run."""
    call("run", locals(), trains=True)

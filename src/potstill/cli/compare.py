"""The command that compares methods: compare."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Gpus, Json, Out, Overrides, Quiet, Ray, Recipe, Workers


def compare(
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
    """Compare methods, students and seeds at an equal budget. The same command resumes an interrupted comparison."""
    call("compare", locals(), trains=True)

"""The command that compares methods: compare."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Json, Out, Overrides, Quiet, Recipe


def compare(
    recipe: Recipe,
    overrides: Overrides = None,
    allow_code: AllowCode = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare methods, students and seeds at an equal budget. The same command resumes an interrupted comparison."""
    call("compare", locals(), trains=True)

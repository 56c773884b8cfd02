"""The command that repeats the step at which a training diverged: debug."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import AllowCode, Json, Quiet


def debug(
    folder: Annotated[str, typer.Argument(help="A run that diverged, or the folder `diverged` in it.")],
    allow_code: AllowCode = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Repeat the step at which a training diverged; name the cause."""
    call("debug", locals())

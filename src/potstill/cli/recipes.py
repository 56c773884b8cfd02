"""The command that lists, shows and copies the packaged experiments: recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet


def recipes(
    action: Annotated[str, typer.Argument(help="list, show or copy.")] = "list",
    name: Annotated[str | None, typer.Argument(help="The recipe to show or copy.")] = None,
    file: Annotated[Path | None, typer.Argument(help="The copy (default: NAME.yaml).")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the experiments that can be run by name; show one, or copy it to change it."""
    call("recipes", locals())

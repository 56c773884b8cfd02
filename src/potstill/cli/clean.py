"""The command that removes what can be made again: clean."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet


def clean(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Run folders, or folders of them (default: runs).")
    ] = None,
    days: Annotated[float, typer.Option(help="Parts of the cache that were not used for so many days.")] = 30,
    max_gb: Annotated[float | None, typer.Option(help="Largest size of the cache; unused parts go first.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is shown.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show what can be made again; --yes removes it.

    That is old parts of the cache, and stores of finished runs.
    """
    call("clean", locals())

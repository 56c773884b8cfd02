"""The command that opens a page to play with runs: app."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet


def app(
    run: Annotated[str | None, typer.Argument(help="A run folder (default: the newest in runs).")] = None,
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1.", min=1, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the default browser.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Open a page on this computer to classify images, distil and browse runs. Needs the extra [app]."""
    call("app", locals())

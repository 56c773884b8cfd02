"""The command that writes the page of finished runs anew: report."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, MaxBytes, MaxDrop, MaxLatency, MinAccuracy, Quiet


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs or stages.")],
    min_accuracy: MinAccuracy = None,
    max_drop: MaxDrop = None,
    max_bytes: MaxBytes = None,
    max_latency: MaxLatency = None,
    lang: Annotated[str, typer.Option(help="Language of the pages: en or ko.")] = "en",
    open: Annotated[bool, typer.Option("--open", help="Show the pages in the browser.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write report.html of finished runs anew, and show what each of them ships."""
    call("report", locals())

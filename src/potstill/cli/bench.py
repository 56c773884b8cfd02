"""The command that measures model files on this machine: bench."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Limit, Quiet, Split, counts, option


def bench(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Exported or packed files, run or stage folders.")
    ] = None,
    device_profile: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="Write a profile of this machine, to scale latencies to it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Labelled images, to measure accuracy too.")] = None,
    batch: Annotated[Any, option(None, "Images a run, comma-separated.", parser=counts)] = "1,32",
    threads: Annotated[Any, option(None, "Threads, comma-separated; 0: all cores.", parser=counts)] = "1,0",
    seconds: Annotated[float, typer.Option(help="Seconds of measurement for each file and setting.")] = 0.5,
    split: Split = "test",
    limit: Limit = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure latency and accuracy of model files, side by side. Ratios are to the first file."""
    call("bench", locals())

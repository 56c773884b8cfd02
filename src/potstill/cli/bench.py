"""The command that measures potstill itself: bench."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from potstill.cli.common import Json, app, carry_out


@app.command()
def bench(
    axes: Annotated[
        list[str] | None, typer.Argument(metavar="AXIS", help="data, speed, store (default: all three).")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="As long as for the recorded figures: some minutes.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads that torch computes with.")] = 2,
    as_json: Json = False,
) -> None:
    """Measure how fast and how small potstill is on this machine, beside what it is compared with.

    data: batches a second, beside torchvision's loader. speed: distillation with a stored teacher, beside training
    without one, a plain loop, and torchdistill where it is installed. store: memory and time of stores of 10,000 and
    100,000 images (with --full also 1,000,000). Images are generated. On two idle cores speed takes two minutes, the
    others some twenty seconds each.
    """

    def work() -> dict[str, Any]:
        from potstill.bench import axes as known
        from potstill.bench.bars import as_json

        return {name: as_json(found) for name, found in known.run(axes or (), full=full, threads=threads).items()}

    def show(result: dict[str, Any]) -> None:
        from potstill.bench.axes import AXES
        from potstill.cli import show

        show.benchmarks({AXES[name].title: found["bars"] for name, found in result.items()})

    carry_out(work, show, as_json)

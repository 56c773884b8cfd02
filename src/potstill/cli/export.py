"""The command that writes files for devices: export."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from potstill.cli.common import Json, Out, Weights, app, carry_out, given
from potstill.cli.compress import Data, Limit, Model


@app.command()
def export(
    model: Model,
    to: Annotated[str, typer.Option(help="onnx, openvino, executorch; several with commas. ONNX always is.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Write an 8-bit copy.")] = True,
    opset: Annotated[int | None, typer.Option(help="Operator set of the ONNX file (default: 20).")] = None,
    calibration: Annotated[int | None, typer.Option(help="How many training images calibrate.")] = None,
    golden: Annotated[int | None, typer.Option(help="How many golden images go along.")] = None,
    data: Data = None,
    limit: Limit = None,
    weights: Weights = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write the files a device needs into one folder, and measure each by running it."""
    settings = {
        "to": [name.strip() for name in to.split(",")],
        "int8": int8,
        "opset": opset,
        "calibration": calibration,
        "golden": golden,
        "data": {"path": data, "limit": limit},
        "weights": str(weights) if weights else None,
    }

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.export(model, out=out, **given(settings))

    carry_out(work, show, as_json)


def show(result: dict[str, Any]) -> None:
    """Print a line a file, and which one to take."""
    from rich.table import Table

    from potstill.cli.console import PlainConsole

    console = PlainConsole()
    table = Table(title=result["folder"], title_justify="left")
    table.add_column("file", no_wrap=True)
    for name in ("kB", "accuracy %", "lost", "same %", "ms", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in result["models"].items():
        if "latency" in row:
            first = row["latency"][0]
            figures = (row["accuracy"], row["lost"], row["agreement"])
            speed = f"{first['median_ms']:.3f}", f"{first['speed_up']:.2f}"
            table.add_row(name, f"{row['bytes'] / 1000:,.1f}", *(f"{value:.2f}" for value in figures), *speed)
    console.print(table)
    console.print("lost: points against the network; same: images with its label; ms: one image on one thread "
                  "(more in summary.json).", soft_wrap=True)  # fmt: skip
    chosen = result["recommended"]
    console.print(f"Take {result['folder']}/{chosen['file']}: {chosen['because']}.", soft_wrap=True)

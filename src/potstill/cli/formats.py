"""The command that shows numbers in number formats: formats."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Json, Quiet


def formats(
    numbers: Annotated[list[str], typer.Argument(metavar="NUMBER...", help="Numbers, such as 7.625 or -0.1.")],
    fixed: Annotated[
        list[str] | None, typer.Option(metavar="I.F", help="Fixed point, such as 4.4; repeatable.")
    ] = None,
    floating: Annotated[
        list[str] | None, typer.Option("--float", metavar="eXmY", help="Floating point, such as e4m3; repeatable.")
    ] = None,
    integer: Annotated[
        list[str] | None, typer.Option(metavar="BITS", help="Integers, with a scale fitted to the numbers; repeatable.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show numbers in fixed point, floating point and integers. By default: q4.4, e4m3, e5m2, fp16 and bf16."""
    call("formats", locals())

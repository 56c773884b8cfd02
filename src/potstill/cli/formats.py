"""The command that shows numbers in number formats: formats."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import typer

from potstill.cli.common import Json, app, carry_out
from potstill.errors import ConfigError

PREFIX = {"--fixed": "q", "--integer": "int", "--float": ""}
KINDS = {"--fixed": "fixed", "--integer": "integer", "--float": "floating"}
EXAMPLE = {
    "--fixed": "4.4 (or uq4.4 without a sign)",
    "--integer": "8 (or uint8)",
    "--float": "e4m3, e5m2, fp16 or bf16",
}


@app.command(context_settings={"ignore_unknown_options": True})  # so that -7.625 is a number
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
    as_json: Json = False,
) -> None:
    """Show numbers in fixed point, floating point and integer formats: stored bits, value, error, range.

    Without a format: q4.4, e4m3, e5m2, fp16 and bf16.
    """

    def work() -> dict[str, Any]:
        from potstill.compress.formats.describe import DEFAULT, describe

        values = [_number(text) for text in numbers]
        named = {"--fixed": fixed, "--float": floating, "--integer": integer}
        chosen = [_format(flag, text) for flag, texts in named.items() for text in texts or ()]
        return describe(values, chosen or DEFAULT)

    carry_out(work, show, as_json)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "an option of this command (potstill formats --help)" if text.startswith("--") else "a finite number"
        raise ConfigError(f"'{text}' is not {kind}. Write numbers such as 7.625, -0.1 or 1e-3.")
    return number


def _format(flag: str, text: str) -> str:
    """Return the text of a format, checked; the flag's own letters may be left out."""
    from potstill.compress.formats.describe import facts
    from potstill.compress.formats.parse import parse_format

    bare = re.fullmatch(r"u?\d+(\.\d+)?", text)
    word = f"u{PREFIX[flag]}{text[1:]}" if bare and text.startswith("u") else f"{PREFIX[flag] if bare else ''}{text}"
    try:
        kind = facts(parse_format(word))["kind"]
    except ConfigError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if kind != KINDS[flag]:
        raise ConfigError(f"{flag} {text}: this is a format of another kind. {flag} takes {EXAMPLE[flag]}.")
    return word


def show(result: dict[str, Any]) -> None:
    """Print a table of the formats, then one for each number."""
    from potstill.cli.console import PlainConsole

    console = PlainConsole()
    console.print(_table("Formats", ("format", "bits", "lowest", "highest", "smallest > 0", "step"), _facts(result)))
    headings = ("format", "stored", "as", "value", "error", "relative", "")
    for number in result["numbers"]:
        title = f"{number['number']:g} = {number['binary']} in binary = {number['normalised']}"
        rows = [_held(value) for value in result["values"] if value["number"] == number["number"]]
        console.print(_table(title, headings, rows))


def _table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("format", "stored", "as"))
    for row in rows:
        table.add_row(*row)
    return table


def _facts(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for one in result["formats"]:
        step = f"{one['step']:.6g}" if "step" in one else f"{one['relative_step']:.3g} of the power of two"
        smallest = f"{one['smallest']:.4g}"
        if "smallest_normal" in one and one["smallest_normal"] > one["smallest"]:
            smallest += f" (subnormal below {one['smallest_normal']:.4g})"
        rows.append((one["title"], str(one["bits"]), f"{one['low']:.6g}", f"{one['high']:.6g}", smallest, step))
    return rows


def _held(value: dict[str, Any]) -> tuple[str, ...]:
    stored = {
        "exponent": lambda: f"{value['sign']} {value['exponent']} {value['mantissa']}",
        "pointed": lambda: value["pointed"],
        "code": lambda: f"{value['stored']} = {value['code']}",
    }
    bits = next((text() for key, text in stored.items() if key in value), "none")
    form = value.get("normalised", "")
    if value.get("significand"):
        form = f"{value['significand']:.6g} x 2^{value['power']}"
    relative = "" if value["relative_error"] is None else f"{100 * value['relative_error']:.3g} %"
    return (
        value["title"],
        bits,
        form,
        f"{value['value']:.8g}",
        f"{value['absolute_error']:.3g}",
        relative,
        value["state"],
    )

"""Numbers in number formats: stored bits, value, rounding error, range."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from potstill.compress.formats.describe import DEFAULT, describe, facts
from potstill.compress.formats.parse import parse_format
from potstill.errors import ConfigError

PREFIX = {"--fixed": "q", "--integer": "int", "--float": ""}
KINDS = {"--fixed": "fixed", "--integer": "integer", "--float": "floating"}
EXAMPLE = {
    "--fixed": "4.4 (or uq4.4 without a sign)",
    "--integer": "8 (or uint8)",
    "--float": "e4m3, e5m2, fp16 or bf16",
}


def formats(
    numbers: Sequence[str | float], *, fixed: Sequence[str], floating: Sequence[str], integer: Sequence[str]
) -> dict[str, Any]:
    """Return each number in each format (`compress.formats.describe`); without formats in q4.4, e4m3, e5m2, fp16, bf16.

    Raises `ConfigError` for what is not a finite number or not a format of the kind it was given as.
    """
    values = [_number(str(text)) for text in numbers]
    named = {"--fixed": fixed, "--float": floating, "--integer": integer}
    chosen = [_format(flag, str(text)) for flag, texts in named.items() for text in texts]
    return describe(values, chosen or DEFAULT)


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
    bare = re.fullmatch(r"u?\d+(\.\d+)?", text)
    word = f"u{PREFIX[flag]}{text[1:]}" if bare and text.startswith("u") else f"{PREFIX[flag] if bare else ''}{text}"
    try:
        kind = facts(parse_format(word))["kind"]
    except ConfigError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if kind != KINDS[flag]:
        raise ConfigError(f"{flag} {text}: this is a format of another kind. {flag} takes {EXAMPLE[flag]}.")
    return word

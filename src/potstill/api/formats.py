"""What `potstill.formats` returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potstill.api.results import Result
from potstill.api.tables import Part, Table


@dataclass(frozen=True, repr=False, eq=False)
class Formats(Result):
    """Numbers in number formats: a table of the formats, then one for each number."""

    def parts(self) -> Iterator[Part]:
        headings = ("format", "bits", "lowest", "highest", "smallest > 0", "step")
        yield Table(headings, tuple(_facts(self.summary)), title="Formats")
        headings = ("format", "stored", "as", "value", "error", "relative", "state")
        for number in self.summary["numbers"]:
            title = f"{number['number']:g} = {number['binary']} in binary = {number['normalised']}"
            rows = (_held(value) for value in self.summary["values"] if value["number"] == number["number"])
            yield Table(headings, tuple(rows), title=title)


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

"""The findings as one self-contained HTML page with thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from potstill.artifacts import write_text
from potstill.data.checks import Report
from potstill.data.checks.finding import EXAMPLES
from potstill.data.manifest import UNLABELLED
from potstill.data.thumbnails import data_url, thumbnail
from potstill.errors import DataError
from potstill.words import plural

_SIDE = 112  # pixels of a thumbnail's longer side
_TOGETHER = 6  # images shown per case


def write_page(report: Report, out: str | Path) -> None:
    """Write the findings of a report, with thumbnails of their examples, to an HTML file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")
    findings = [
        {"finding": finding, "cases": [_case(report, rows) for rows in finding.rows[:EXAMPLES]]}
        for finding in report.findings
    ]
    write_text(Path(out), template.render(report=report.to_json(), findings=findings, plural=plural))


def _case(report: Report, rows: Sequence[int]) -> list[dict[str, str]]:
    seen = report.survey
    return [
        {
            "name": seen.paths[row],
            "label": "" if seen.label[row] == UNLABELLED else seen.classes[seen.label[row]],
            "image": "" if seen.facts[row].fault else _thumbnail(report, row),
            "problem": seen.facts[row].problem,
        }
        for row in rows[:_TOGETHER]
    ]


def _thumbnail(report: Report, row: int) -> str:
    """Return an image as a data URL; empty if the file has been removed since."""
    try:
        pixels = report.survey.source.image(row)
    except DataError:
        return ""
    return data_url(thumbnail(pixels, _SIDE), "JPEG")

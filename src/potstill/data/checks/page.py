"""The findings as one HTML page with thumbnails, readable without a network."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from potstill.artifacts import write_text
from potstill.data.checks import Report
from potstill.data.checks.finding import EXAMPLES
from potstill.data.manifest import UNLABELLED
from potstill.errors import DataError

_SIDE = 112  # pixels of a thumbnail's longer side
_TOGETHER = 6  # images shown of one case


def write_page(report: Report, out: str | Path) -> None:
    """Write the findings of a report, with thumbnails of their examples, to an HTML file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")
    findings = [
        {"finding": finding, "cases": [_case(report, rows) for rows in finding.rows[:EXAMPLES]]}
        for finding in report.findings
    ]
    write_text(Path(out), template.render(report=report.to_json(), findings=findings))


def _case(report: Report, rows: Any) -> list[dict[str, str]]:
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
    """Return an image as the text of a data address; empty where it has been removed since."""
    try:
        pixels = report.survey.source.image(row)
    except DataError:
        return ""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    zoom = _SIDE / max(image.size)
    size = tuple(max(1, round(side * zoom)) for side in image.size)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR if zoom < 1 else Image.Resampling.NEAREST).save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

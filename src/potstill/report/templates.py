"""Pages from Jinja templates: self-contained, HTML-escaped; a missing value raises an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent


def filled(template: str, **values: Any) -> str:
    """Return a rendered template of this folder; every page also gets the variable `css`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(css=(HERE / "report.css").read_text(encoding="utf-8"), **values)

"""Pages from Jinja templates: self-contained, HTML-escaped; a missing value raises an error."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from potstill import words
from potstill.report.language import ENGLISH, translator

HERE = Path(__file__).parent


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def filled(template: str, *, language: str = ENGLISH, **values: Any) -> str:
    """Return a rendered template of this folder.

    Every template also gets `css`, `words` (potstill.words), `language` and `_`, which translates a fixed text.
    """
    css = (HERE / "report.css").read_text(encoding="utf-8")
    shared = {"css": css, "words": words, "language": language, "_": translator(language)}
    return _environment().get_template(template).render({**shared, **values})

"""Pages from Jinja templates: self-contained, HTML-escaped; a missing value raises an error."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from potstill import words
from potstill.report.language import ENGLISH, translator

HERE = Path(__file__).parent
SHOWN = re.compile(r'(?<=aria-label=")[^"]+(?=")|(?<=>)[^<>]*\w[^<>]*(?=</text>)')
"""What a reader sees or hears of a drawing: its alternative text, and the texts in it."""


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

    Every template also gets `css`, `words` (potstill.words), `language`, `_`, which translates a fixed text, and
    `drawn`, which translates the texts of a drawing.
    """
    css, translate = (HERE / "report.css").read_text(encoding="utf-8"), translator(language)
    shared = {"css": css, "words": words, "language": language, "_": translate}
    shared["drawn"] = functools.partial(drawn, translate=translate)
    return _environment().get_template(template).render({**shared, **values})


def drawn(svg: str, translate: Callable[[str], str]) -> str:
    """Return a drawing (SVG) with its texts and its alternative text translated."""
    return SHOWN.sub(lambda found: html.escape(translate(html.unescape(found[0]))), svg)

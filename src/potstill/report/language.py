"""The fixed texts of the pages in other languages. English is the text itself; a catalogue translates it."""

from __future__ import annotations

from collections.abc import Callable

ENGLISH = "en"
CATALOGUES: dict[str, dict[str, str]] = {ENGLISH: {}}
"""By language, the translation of each English text; a text that is absent stays English."""


def translator(language: str) -> Callable[[str], str]:
    """Return the function that translates a fixed text into a language of `CATALOGUES`."""
    catalogue = CATALOGUES[language]
    return lambda text: catalogue.get(text, text)

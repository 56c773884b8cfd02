"""The texts of the pages in other languages: catalogues of English texts with their translation.

English is the text itself. A key of `languages/NAME.yaml` is a text of the source, in which {names} stand for what is
put in at run time: "Ship {file}: {accuracy} in {size}". A text that no key fits stays English, sentence by sentence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from potstill.errors import UserError
from potstill.yaml_text import parse_yaml

ENGLISH = "en"
FOLDER = Path(__file__).parent / "languages"
NUMBERS = {"n", "low", "high", "points", "factor", "temperature"}
"""Names that stand for a number; others stand for any text."""
NUMBER = r"[+\N{MINUS SIGN}-]?\d[\d.,]*(?:\N{NO-BREAK SPACE}%)?"
INSIDE = r"(?:(?!\. [A-Z]).)+?"
"""A text that does not go beyond its sentence."""
PLACE = re.compile(r"\{(\w+)\}")


def languages() -> list[str]:
    """Return the languages that pages can be written in."""
    return [ENGLISH, *sorted(file.stem for file in FOLDER.glob("*.yaml"))]


@functools.cache
def translator(language: str) -> Callable[[str], str]:
    """Return the function that translates the texts of a page. Raises `UserError` for an unknown language."""
    if language == ENGLISH:
        return lambda text: text
    if language not in languages():
        raise UserError(f"There is no report in the language {language!r}. Choose one of {', '.join(languages())}.")
    return Catalogue(catalogue(language)).translated


def catalogue(language: str) -> dict[str, str]:
    """Return the texts of a language by their English."""
    return parse_yaml((FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))


class Catalogue:
    """Translations by English text, which may have places for what is put in."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        patterns = [english for english in texts if PLACE.search(english)]
        patterns.sort(key=lambda english: -len(PLACE.sub("", english)))  # the most specific first
        self._patterns = [(_pattern(english), texts[english]) for english in patterns]

    def translated(self, text: str) -> str:
        """Return a text in the language, sentence by sentence where the whole is not known."""
        whole = self._whole(text)
        if whole is not None:
            return whole
        sentences = re.split(r"(?<=[.:]) (?=[A-Z])", text)
        return " ".join(self._whole(sentence) or sentence for sentence in sentences)

    def _whole(self, text: str) -> str | None:
        if text in self._texts:  # also a text whose places the page fills in itself
            return self._texts[text]
        for pattern, own in self._patterns:
            if found := pattern.fullmatch(text):
                parts = {name: self._whole(part) or part for name, part in found.groupdict().items()}
                return PLACE.sub(functools.partial(_put, parts), own)
        return None


def _pattern(english: str) -> re.Pattern[str]:
    """Return the pattern of an English text with places."""
    parts = PLACE.split(english)
    written = [re.escape(part) if number % 2 == 0 else _place(part) for number, part in enumerate(parts)]
    return re.compile("".join(written), re.S)


def _place(name: str) -> str:
    return f"(?P<{name}>{NUMBER if name in NUMBERS else INSIDE})"


def _put(parts: dict[str, str], place: re.Match[str]) -> str:
    return parts[place[1]]

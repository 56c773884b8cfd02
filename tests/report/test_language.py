"""Reports in other languages: catalogues whose English exists in the source, and pages with the same figures."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.report import write_report
from potstill.report.advice import compared, effect
from potstill.report.first import below
from potstill.report.language import PLACE, Catalogue, catalogue, languages, translator
from potstill.report.templates import drawn
from tests.report import example
from tests.report.test_report import Page
from tests.test_voice import PACKAGE, strings

OTHERS = languages()[1:]
SOURCES = ("report", "evaluation", "stages", "teachers")
WORD = re.compile(r"[A-Za-z]{2,}")


@functools.cache
def source() -> str:
    """Return all texts of the report, of the statistics and of the stages: strings of Python, and templates."""
    files = [file for name in SOURCES for file in (PACKAGE / name).rglob("*.py")] + [PACKAGE / "words.py"]
    texts = [text for file in files for _, text in strings(file.read_text(encoding="utf-8"))]
    texts += [file.read_text(encoding="utf-8") for file in files]  # strings inside of f-strings
    texts += [file.read_text(encoding="utf-8") for file in (PACKAGE / "report").rglob("*.html")]
    return "\n".join(texts)


def written(fragment: str) -> bool:
    """Whether a part of a text is in the source; `words.plural` makes "images" of "image"."""
    forms = (fragment, fragment.removesuffix("s"), fragment.removesuffix("es"))
    return any(form in source() for form in forms)


ASSEMBLED = ("beats the", "loses to the", "ties with the", "BEATS by", "LOSES by", "of 100 test images", "points above")
"""Parts of keys that the source puts together of several strings; `test_every_verdict_is_translated` makes them."""


@pytest.mark.parametrize("language", OTHERS)
def test_every_key_of_a_catalogue_is_a_text_of_the_source(language: str) -> None:
    """A text that is reworded in the source would silently stay English."""
    fragments = {
        key: [part.strip(" .") for part in re.split(r"\{\w+\}|; |: |, |\. |\(|\)|per image| in 8 bits", key)]
        for key in catalogue(language)
        if not any(part in key for part in ASSEMBLED)
    }
    lost = {
        key: [part for part in parts if WORD.search(part) and not written(part)] for key, parts in fragments.items()
    }
    assert {key: parts for key, parts in lost.items() if parts} == {}


@pytest.mark.parametrize("language", OTHERS)
def test_translations_have_the_places_of_their_key(language: str) -> None:
    for english, own in catalogue(language).items():
        assert set(PLACE.findall(own)) == set(PLACE.findall(english)), english
        assert own and own != english


def test_texts_with_places_and_sentences() -> None:
    texts = {
        "{n} images": "이미지 {n}장",
        "Ship {file}: {size}": "{file} 배포: {size}",
        "Ship {file}: nothing": "배포하지 않음",
        "It is over {images}.": "{images} 기준.",
    }
    say = Catalogue(texts).translated
    assert say("Ship a.onnx: 24 images") == "a.onnx 배포: 이미지 24장"  # what is put in is translated too
    assert say("Ship a.onnx: nothing") == "배포하지 않음"  # the most specific key
    assert say("Nobody knows this. It is over 3 images.") == "Nobody knows this. 이미지 3장 기준."
    assert say("many images") == "many images"


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize(("student", "control", "seeds"), [(91, 85, 3), (85, 91, 3), (88, 88, 3), (91, 85, 1)])
def test_every_verdict_is_translated(language: str, student: float, control: float, seeds: int) -> None:
    say = translator(language)
    models, verdict = example.world(control=control, student=student, seeds=seeds, images=540)
    summary = {"kind": "distill", "models": models, "verdict": verdict, "recipe": {"temperature": 4}}
    found = effect({**summary, "data": {"splits": {}}}, 1)
    assert found is not None
    texts = [found.title, found.meaning, compared(verdict, 1), *([verdict["sentence"]] if seeds > 1 else [])]
    english = [text for text in map(say, texts) if re.search(r"[a-z]{3,} (the|is|of|to|with|test) ", text)]
    assert english == []
    ship = {"reference": {"role": "teacher", "difference": 1.5, "interval": [0.2, 2.8]}}
    assert "1.5" in say(below(ship, 1)) and "points" not in say(below(ship, 1))


def test_drawings_are_translated_and_stay_drawings() -> None:
    texts = {"epoch": "에폭", "Accuracy over epochs: {values}.": "에폭에 따른 정확도: {values}."}
    rest = "<text>&lt;b&gt;</text><path/></svg>"
    svg = f'<svg aria-label="Accuracy over epochs: &lt;b&gt; 9."><text x="1">epoch</text>{rest}'
    own = f'<svg aria-label="에폭에 따른 정확도: &lt;b&gt; 9."><text x="1">에폭</text>{rest}'
    assert drawn(svg, Catalogue(texts).translated) == own
    assert drawn(svg, translator("en")) == svg


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match="Choose one of en, ko"):
        translator("xx")
    assert translator("en")("Models") == "Models"


@pytest.mark.slow
@pytest.mark.parametrize("language", OTHERS)
def test_the_page_has_the_same_figures(language: str, tmp_path: Path) -> None:
    example.write_run(tmp_path)
    pages = {}
    for one in ("en", language):
        html = write_report(tmp_path, language=one).read_text(encoding="utf-8")
        pages[one] = Page(re.sub(r"<svg.*?</svg>", "", html, flags=re.S))
        assert f'<html lang="{one}">' in html
        assert (">epoch</text>" in html) == (one == "en") and ("Training loss over epochs" in html) == (one == "en")
    numbers = {one: sorted(re.findall(r"\d[\d.,]*\d", page.text)) for one, page in pages.items()}
    assert numbers["en"] == numbers[language]
    screen = translator(language)("Next steps")
    assert screen in pages[language].text and "Next steps" not in pages[language].text
    left = [text.strip() for text in pages[language].words if re.search(r"[A-Za-z]{3,} [a-z]{3,} [a-z]{2,}", text)]
    own = [text for text in left if re.search(r"[^\x00-\u024f]", text)]
    assert len(left) - len(own) < 20  # of about 200: steps, notes and comparisons of a run are its own words

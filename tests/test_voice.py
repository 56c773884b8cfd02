"""User-facing text is plain technical English: phrases of the black list occur nowhere in it.

Text is collected from the source: every string that is not a docstring (errors, notes, help, titles, labels), the text
of the HTML templates, and the docstrings of commands, which `--help` shows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "potstill"


BLACK_LIST = {
    "of a model: predicts, outputs, logits": r"\b(says|said|told|asked)\b",
    "classified correctly": r"\bcall(s|ed)? rightly\b",
    "was not measurably better": r"\bbrought nothing\b|\bluck would\b",
    "name what it is": r"\bwhat lies behind\b|\bmakes much of\b|\ba lot drawn\b",
    "shared, inherited": r"\bhanded on\b",
    "memorised": r"\blearned by heart\b",
    "composited on white": r"\blaid on white\b",
    "nesting level": r"\bdots deep\b",
    "say of what": r"^\W*of the weights\W*$",
    "per image, per step": r"\b(time|ms|s|seconds?|milliseconds?|images?|rows?|values?) an? "
    r"(image|step|second|epoch|seed|batch|row|class|channel|layer|side|pixel)\b",
}


def phrases(text: str) -> list[str]:
    """Return the phrases of the black list in a text."""
    found = (re.search(pattern, text, re.IGNORECASE) for pattern in BLACK_LIST.values())
    return [match.group(0) for match in found if match]


def strings(source: str, *, commands: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the strings in Python source; commands: the docstrings of functions too.

    The values in an f-string become "…". Words without a space are keys and names, not text.
    """
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            text = node.value
        elif commands and isinstance(node, ast.FunctionDef):
            text = ast.get_docstring(node) or ""
        else:
            continue
        if " " in text:
            yield node.lineno, text


def shown(html: str) -> str:
    """Return the text of an HTML template: without style, tags and template code."""
    for pattern in (r"<style.*?</style>", r"{%.*?%}", r"{{.*?}}", r"<[^>]*>"):
        html = re.sub(pattern, " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html)


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_text_is_plain(file: Path) -> None:
    texts = strings(file.read_text(encoding="utf-8"), commands=room(file) == "cli")
    assert [(line, found, text) for line, text in texts if (found := phrases(text))] == []


@pytest.mark.parametrize("file", [*PACKAGE.rglob("*.html"), *PACKAGE.rglob("*.jinja")], ids=lambda file: file.name)
def test_pages_are_plain(file: Path) -> None:
    assert phrases(shown(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    ["What the teacher says.", "images that a model calls rightly", "Of the weights.", "Time an image", "Images a step"]
    + [
        "12 ms an image",
        "fine-tuning brought nothing that luck would not",
        "down to 2 dots deep",
        "Was Laid on white.",
    ],
)
def test_the_black_list_finds(text: str) -> None:
    assert phrases(text)


@pytest.mark.parametrize(
    "text", ["12 ms/image", "an image of 3 pixels", "L2 penalty of the weights", "essays on aside"]
)
def test_the_black_list_leaves_plain_text_alone(text: str) -> None:
    assert not phrases(text)


def test_every_kind_of_text_is_collected() -> None:
    source = '''
"""The module says nothing."""
def command(name: str = Option(help="What it says")):
    """The command says."""
    raise RunError(f"The teacher {name} "
                   "told it.")
'''
    assert {text for _, text in strings(source)} == {"What it says", "The teacher … told it."}
    assert "The command says." in [text for _, text in strings(source, commands=True)]
    assert shown("<style>a b</style><p title='x'>Time {{ value }}</p>{% if says %}").split() == ["Time"]

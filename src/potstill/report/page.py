"""The frame that all pages share: a first screen, and blocks below it, each with a small template of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from potstill.report.language import ENGLISH
from potstill.report.templates import filled


@dataclass(frozen=True)
class Block:
    """A section: its id, its title, the template `blocks/NAME.html`, and the values that the template calls `b`."""

    id: str
    title: str
    name: str
    values: dict[str, Any]

    @property
    def template(self) -> str:
        """The template of the block."""
        return f"blocks/{self.name}.html"


@dataclass(frozen=True)
class Effect:
    """Whether the teacher helped: a title, what it means, and the difference on a scale with zero."""

    title: str
    tone: str
    meaning: str
    scale: dict[str, Any] | None = None


@dataclass(frozen=True)
class First:
    """The first screen: what to ship and how good it is, whether the target is met, whether the teacher helped.

    tone: "good", "even" or "bad". lines: sentences. tiles: (figure, caption). next: (purpose, command or nothing).
    """

    headline: str
    tone: str = "even"
    stamp: str = ""
    lines: tuple[str, ...] = ()
    tiles: tuple[tuple[str, str], ...] = ()
    effect: Effect | None = None
    next: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A page. kicker: the line above the headline. play: what `blocks/play.html` takes; None leaves it out."""

    name: str
    kicker: str
    first: First
    blocks: tuple[Block, ...]
    footer: str
    play: dict[str, Any] | None = field(default=None, repr=False)


def rendered(page: Page, *, language: str = ENGLISH) -> str:
    """Return the page as HTML, which needs no network and no other file."""
    return filled("frame.html", language=language, page=page, play=page.play)

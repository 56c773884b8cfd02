"""The console of all commands: strings are shown as they are."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from potstill.plain_text import visible


class PlainConsole(Console):
    """A console to which a string is text: no markup, no emoji names, no terminal sequences.

    A class may be called `[/b]`, `[bold red]dog` or `:dog:`, and appears as that.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text, in tables and titles too."""
        return super().render_str(visible(text), **options)

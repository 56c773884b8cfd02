"""What the documents show: code blocks by language, command lines, and what a command line names."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])

LANGUAGES = {"bash", "yaml", "python", "json", "c", "text", ""}
"""Blocks without a language, and `text`, are output or the shape of a folder; their command lines are checked too."""


@dataclass(frozen=True)
class Block:
    """A fenced code block. line: of its first line in the file."""

    file: Path
    language: str
    line: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.file.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of the documents, of these languages or of all."""
    found = []
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```", text, re.M | re.S):
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(file, match[2].strip(), line, re.sub(f"^{match[1]}", "", match[3], flags=re.M)))
    return [block for block in found if not languages or block.language in languages]


def shell_lines() -> list[tuple[str, str]]:
    """Return (place, line) of the lines that a reader would type: of bash blocks, and indented or inline commands."""
    found = []
    for block in blocks("bash", "", "text"):
        joined = re.sub(r"\\\n\s*", " ", block.text)
        lines = [line.removeprefix("$ ") for line in joined.splitlines()]
        typed = [line for line in lines if line.strip() and not line.startswith(" ")]
        if block.language != "bash":
            typed = [line for line in typed if re.match(r"(potstill|make|pip) ", line)]
        found += [(block.place, line) for line in typed]
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        inline = re.findall(r"`(potstill [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        indented = re.findall(r"^    (potstill .+)$", text, re.M)
        found += [(file.name, re.sub(r"\s+", " ", line)) for line in dict.fromkeys([*inline, *indented])]
    return list(dict.fromkeys(found))


def words(line: str) -> list[str]:
    """Return a command line as the shell splits it; `< > |` and what follows `#` are of the shell."""
    return shlex.split(line, comments=True)


def value_of(typed: list[str], flag: str) -> list[str]:
    """Return the values of a flag in a command line."""
    return [typed[place + 1] for place, word in enumerate(typed[:-1]) if word == flag]

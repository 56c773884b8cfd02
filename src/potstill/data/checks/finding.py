"""`Finding`: one thing that was found out about a data set, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "info")
EXAMPLES = 10


@dataclass(frozen=True)
class Finding:
    """What was found, how often, and the command or act that helps.

    code: short and stable, such as "damaged". severity: "error" (commands refuse the data, or the result would be
    wrong), "warning" (look at it) or "info" (handled, said for the record). count: images, or pairs and groups of
    them. text: a sentence. advice: the next step. rows: of the survey, those that belong to one case together.
    drop: rows that `fix` leaves out because of it. names: examples that are no images, such as classes or files.
    """

    code: str
    severity: str
    count: int
    text: str
    advice: str
    rows: Sequence[Sequence[int]] = field(default_factory=list)
    drop: Sequence[int] = field(default_factory=list)
    names: Sequence[str] = field(default_factory=list)

    def to_json(self, paths: Sequence[str]) -> dict[str, Any]:
        """Return plain JSON types; `paths` are those of the survey's rows."""
        examples = [[paths[row] for row in rows] for rows in self.rows[:EXAMPLES]]
        return {
            "code": self.code,
            "severity": self.severity,
            "count": self.count,
            "text": self.text,
            "advice": self.advice,
            "examples": examples or [[name] for name in self.names[:EXAMPLES]],
        }


def number(count: int, one: str, many: str | None = None) -> str:
    """Return "1 image is" or "3 images are": the count and the words for it, separated as people write numbers."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"

"""`Finding`: one observation about a data set, with advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "info")
EXAMPLES = 10


@dataclass(frozen=True)
class Finding:
    """An observation, how often it occurs, and what to do about it.

    code: short and stable, such as "damaged". severity: "error" (commands refuse the data, or results would be
    wrong), "warning" (check it) or "info" (handled automatically). count: images, or pairs and groups of them.
    text: a sentence. advice: the next step. rows: rows of the survey, one list per case. drop: rows that `fix` leaves
    out because of it. names: examples that are not images, such as classes or files.
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

"""Findings about a data set: what would invalidate results, what is unusual, what is handled automatically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.checks import content, copies, grouping, labels
from potstill.data.checks.finding import SEVERITIES, Finding
from potstill.data.checks.grouping import Proposal, propose_groups
from potstill.data.checks.survey import Survey, survey
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest

__all__ = ["Finding", "Proposal", "Report", "check", "examine", "propose_groups"]


@dataclass(frozen=True)
class Report:
    """A survey and the findings about it, the worst first."""

    survey: Survey
    findings: list[Finding]

    @property
    def worst(self) -> str:
        """The severity of the worst finding, "none" if there are no findings."""
        return self.findings[0].severity if self.findings else "none"

    def with_finding(self, finding: Finding) -> Report:
        """Return the report with one more finding, in its place."""
        return Report(self.survey, _ordered([*self.findings, finding]))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        seen = self.survey
        labelled = seen.label != UNLABELLED
        counts = {
            split: {
                "images": int((seen.split == place).sum()),
                "labelled": int((labelled & (seen.split == place)).sum()),
            }
            for place, split in enumerate(SPLITS)
        }
        return {
            "data": seen.root,
            "images": len(seen),
            "readable": int(seen.readable.sum()),
            "classes": list(seen.classes),
            "splits": counts,
            "worst": self.worst,
            **{f"{kind}s": sum(one.severity == kind for one in self.findings) for kind in ("error", "warning")},
            "findings": [finding.to_json(seen.paths) for finding in self.findings],
        }


def examine(path: str | Path | Manifest, *, group: str | None = None) -> Report:
    """Read every image of a data set once (cached by size and modification time) and return the findings.

    Raises `DataError` if there are no images.
    """
    seen = survey(path, group=group)
    findings = [
        *content.layout(seen),
        *content.unreadable(seen),
        *labels.classes(seen),
        *copies.exact(seen),
        *copies.near(seen),
        *grouping.groups(seen),
        *content.traits(seen),
    ]
    return Report(seen, _ordered(findings))


def _ordered(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def check(path: str | Path | Manifest, *, group: str | None = None) -> list[Finding]:
    """Return the findings about a data set, the worst first."""
    return examine(path, group=group).findings

"""Write what a comparison measured into docs/: its tables in NAME.md and every figure in NAME.json.

    python benchmarks/record_comparison.py RUN NAME --commit HASH --data "which copy" [--command "..."] [--note "..."]

The command replaces the one in the summary where that names paths of the machine it ran on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from potstill.report.exports import markdown

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--commit", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--command")
    parser.add_argument("--note", action="append", default=[])
    asked = parser.parse_args()
    summary = without_paths(json.loads((asked.run / "summary.json").read_text(encoding="utf-8")))
    summary |= {"command": asked.command or summary["command"], "commit": asked.commit, "data_copy": asked.data}
    summary["notes"] += asked.note
    (DOCS / f"{asked.name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    page = markdown(summary) + f"- Code: commit {asked.commit}\n- Copy of the data: {asked.data}\n"
    (DOCS / f"{asked.name}.md").write_text(page, encoding="utf-8")


def without_paths(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with file names instead of the machine's paths."""
    place = Path(summary["data"]["source"])
    summary["notes"] = [note.replace(f"{place.parent}/", "") for note in summary["notes"]]
    summary["data"]["source"] = place.name
    recipe = summary["recipe"]
    recipe["data"]["path"] = Path(recipe["data"]["path"]).name
    if recipe["teacher"]["weights"]:
        recipe["teacher"]["weights"] = Path(recipe["teacher"]["weights"]).name
    return summary


if __name__ == "__main__":
    main()

"""Write what a run measured into docs/: a table in NAME.md and the same figures in NAME.json.

python benchmarks/record.py RUN NAME [--command "..."] [--title "..."]

The command replaces the one in the summary where that names paths of the machine it ran on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
MODELS = {
    "teacher": "teacher",
    "control": "control, no teacher",
    "student": "student, distilled",
    "student_int8": "student, 8 bit",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command")
    parser.add_argument("--title")
    asked = parser.parse_args()
    summary = json.loads((asked.run / "summary.json").read_text(encoding="utf-8"))
    figures = figures_of(summary, asked.command)
    (DOCS / f"{asked.name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    title = asked.title or summary["recipe"]["title"] or summary["name"]
    (DOCS / f"{asked.name}.md").write_text(page(title, figures), encoding="utf-8")


def figures_of(summary: dict[str, Any], command: str | None) -> dict[str, Any]:
    """Return what is recorded of a run: no paths of the machine."""
    kept = ("date", "machine", "versions", "models", "verdict", "comparisons", "export", "notes", "seconds")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    recipe = json.loads(json.dumps(summary["recipe"]))
    path = recipe["data"]["path"]
    recipe["data"]["path"] = Path(path).name
    if recipe["teacher"]["weights"]:
        recipe["teacher"]["weights"] = Path(recipe["teacher"]["weights"]).name
    data = {key: summary["data"][key] for key in ("splits", "image", "fingerprint")}
    figures = {"command": command or summary["command"], "commit": commit, "data": data, "recipe": recipe}
    kept_figures = {key: summary[key] for key in kept}
    kept_figures["notes"] = [note.replace(path, Path(path).name) for note in summary["notes"]]
    return figures | kept_figures


def page(title: str, figures: dict[str, Any]) -> str:
    """Return the document."""
    machine, splits = figures["machine"], figures["data"]["splits"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    lines = [
        f"# {title}",
        "",
        f"`{figures['command']}`",
        "",
        *table(figures["models"]),
        "",
        f"**{figures['verdict']['result']}.** {figures['verdict']['sentence']}",
        "",
    ]
    for other in figures["comparisons"]:
        lines += [f"## {other['name']}", "", other["text"], "", *table(other["models"]), ""]
        lines += [f"**{other['verdict']['result']}.** {other['verdict']['sentence']}", ""]
    lines += [
        "## How it was measured",
        "",
        f"Test accuracy in percent on {splits['test']:,} images, opened once, after training; "
        f"{splits['train']:,} images to train on ({splits['labelled']:,} with labels for the student), "
        f"{splits['validation']:,} for validation. Milliseconds: median of one image in onnxruntime on one thread.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, device {machine['device']}; "
        f"{figures['seconds'] / 60:.1f} minutes in all, beside other work. {versions}. "
        f"{figures['date'][:10]}, commit {figures['commit'][:10]}.",
        "",
    ]
    return "\n".join(lines)


def table(models: dict[str, Any]) -> list[str]:
    """Return the rows of a table of models."""
    rows = ["| model | test accuracy % | seeds | parameters | bytes | ms |", "|---|---:|---|---:|---:|---:|"]
    for kind, facts in models.items():
        value = facts["test_accuracy"]
        seeds = value if isinstance(value, list) else [value]
        each = ", ".join(f"{one:.2f}" for one in seeds) if isinstance(value, list) else ""
        rows.append(
            f"| {MODELS[kind]} ({facts['name']}) | {sum(seeds) / len(seeds):.2f} | {each} | "
            f"{facts.get('parameters', 0):,} | {facts['bytes']:,} | {facts['latency_ms']:.4f} |"
        )
    return rows


if __name__ == "__main__":
    main()

"""Learn from few labels and many images, over several draws of the labels; write docs/NAME.md and docs/NAME.json.

    python benchmarks/selftrain.py RECIPE.yaml OUT DRAWS [KEY=VALUE]... [--record NAME] [--title "..."] [--first K]

Draw k is the recipe with seed=k and one seed, so the draws are the pairs of the comparison. A draw that is finished in
OUT is not made again; without --record nothing is written outside OUT. The ablation of the students' noise, which
leaves the teachers as they are: noise=none large_noise=none. --first 10 makes draws to choose settings on, apart from
those that are recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from potstill import config, progress
from potstill.evaluation.statistics import compare, percent_interval
from potstill.stages.selftrain import SelftrainConfig, selftrain
from potstill.stages.selftrain.rounds import ALONE
from potstill.stages.selftrain.test_table import TEACHERS
from potstill.stages.selftrain.unlabelled import read

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("draws", type=int)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--record")
    parser.add_argument("--title", default="Few labels, many images")
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    settings = config.override(config.read_yaml(asked.recipe), asked.overrides)
    draws = range(asked.first, asked.first + asked.draws)
    runs = [run(settings, asked.out / f"draw-{k}", k) for k in draws]
    figures = figures_of(runs, [asked.out / f"draw-{k}" for k in draws], command(asked))
    text = page(asked.title, figures)
    print(text)
    if asked.record:
        (DOCS / f"{asked.record}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (DOCS / f"{asked.record}.md").write_text(text, encoding="utf-8")


def command(asked: argparse.Namespace) -> str:
    """Return the command without the paths of this machine."""
    changes = [f"{key}={Path(value).name}" for key, _, value in (text.partition("=") for text in asked.overrides)]
    first = [f"--first {asked.first}"] if asked.first else []
    recipe = f"benchmarks/recipes/{asked.recipe.name}"
    return " ".join(["python benchmarks/selftrain.py", recipe, "OUT", str(asked.draws), *changes, *first])


def run(settings: dict[str, Any], folder: Path, draw: int) -> dict[str, Any]:
    """Return the summary of one draw."""
    with progress.use(progress.Display()):
        return selftrain(config.build(SelftrainConfig, {**settings, "seed": draw, "seeds": 1}), folder)


def figures_of(runs: list[dict[str, Any]], folders: list[Path], command: str) -> dict[str, Any]:
    """Return the figures over all draws; a row that some draws do not have is left out of the table."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    shared = [name for name in runs[0]["models"] if all(name in one["models"] for one in runs)]
    right = _right(runs, folders, shared)
    rows = [_row(runs, name, right) for name in shared]
    kept = ("choice", "labels", "pool", "seconds")
    settings = json.loads(json.dumps(runs[0]["recipe"]))
    settings["data"]["path"] = Path(settings["data"]["path"]).name
    for teacher in settings["teachers"]:
        teacher["weights"] = teacher["weights"] and Path(teacher["weights"]).name
    return {
        "command": command,
        "commit": commit,
        "date": runs[-1]["date"],
        "machine": runs[-1]["machine"],
        "versions": runs[-1]["versions"],
        "recipe": settings,
        "splits": runs[0]["data"]["splits"],
        "images": runs[0]["models"][ALONE]["images"],
        "rows": rows,
        "draws": [{"draw": one["recipe"]["seed"], **{key: one[key] for key in kept}} for one in runs],
    }


def _right(runs: list[dict[str, Any]], folders: list[Path], names: list[str]) -> dict[str, np.ndarray]:
    """Return bool [draws, N] by row: whether its model is right on each test image."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for one, folder in zip(runs, folders, strict=True):
        said = load_file(folder / "evaluation" / "logits.safetensors")
        with progress.use(progress.Display()):
            manifest = read(config.build(SelftrainConfig, one["recipe"]))
        truth = manifest.label[manifest.rows("test", labelled=True)]
        for name in names:
            key = name if name == TEACHERS else f"{name}/{one['recipe']['seed']}"
            found[name].append(said[key].argmax(1) == truth)
    return {name: np.stack(rows) for name, rows in found.items()}


def _row(runs: list[dict[str, Any]], name: str, right: dict[str, np.ndarray]) -> dict[str, Any]:
    rows = [one["models"][name] for one in runs]
    error = [round(100 - row["test_accuracy"][0], 3) for row in rows]
    interval = percent_interval(error)
    found = {
        "name": name,
        "test_error": error,
        "mean": round(float(np.mean(error)), 2),
        "interval": interval and [round(bound, 2) for bound in interval],
        "parameters": rows[0].get("parameters"),
        "steps": [row.get("steps") for row in rows],
        "seconds": [row.get("seconds") for row in rows],
    }
    if name not in (ALONE, TEACHERS):
        found["against_labels_only"] = compare(right[name], right[ALONE], names=(name, ALONE)).to_json()
        found["against_teachers"] = compare(right[name], right[TEACHERS], names=(name, TEACHERS)).to_json()
        found["share_of_error"] = round(float((~right[name]).mean() / (~right[ALONE]).mean()), 3)
    return found


def page(title: str, figures: dict[str, Any]) -> str:
    """Return the document."""
    lines = [f"# {title}", "", f"`{figures['command']}`", "", *_table(figures), ""]
    for row in figures["rows"]:
        if "against_labels_only" in row:
            alone, theirs = row["against_labels_only"], row["against_teachers"]
            lines.append(f"**{alone['result']}.** {alone['sentence']} {theirs['sentence']}\n")
    lines += ["## Every draw", "", *_draws(figures), "", "## How it was measured", "", _how(figures), ""]
    return "\n".join(lines)


def _table(figures: dict[str, Any]) -> list[str]:
    lines = [
        "| row | test error % | 95 % interval | of the error with labels only | draws | parameters | steps |",
        "|---|---:|---|---:|---|---:|---:|",
    ]
    for row in figures["rows"]:
        span = "{:.2f} to {:.2f}".format(*row["interval"]) if row["interval"] else "one draw"
        each = ", ".join(f"{error:.2f}" for error in row["test_error"])
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        steps = row["steps"][0] or ""
        share = f"{100 * row['share_of_error']:.0f} %" if "share_of_error" in row else ""
        cells = (row["name"], f"{row['mean']:.2f}", span, share, each, parameters, steps)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _draws(figures: dict[str, Any]) -> list[str]:
    lines = [
        "| draw | labels' precision %, unseen | coverage % | pool used | left out as copies | churn % | decision |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for one in figures["draws"]:
        worth, generations = one["labels"]["quality"], one["labels"]["generations"]
        precision = worth["precision"] or {"percent": float("nan"), "interval": [float("nan")] * 2}
        spans = [f"{p['percent']:.1f} ({p['interval'][0]:.1f} to {p['interval'][1]:.1f})" for p in
                 (precision, worth["coverage"])]  # fmt: skip
        churn = ", ".join(f"{g['churn']:.1f}" for g in generations if g["churn"] is not None)
        used, left = generations[0]["images"]["used"], sum(one["pool"]["left_out"].values())
        told = one["choice"]["sentence"]
        lines.append(f"| {one['draw']} | {spans[0]} | {spans[1]} | {used:,} | {left:,} | {churn} | {told} |")
    return lines


def _how(figures: dict[str, Any]) -> str:
    machine, splits = figures["machine"], figures["splits"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    seconds = sum(one["seconds"] for one in figures["draws"])
    return (
        f"Test error in percent on {figures['images']:,} images, opened once in every draw, after the choice on "
        f"validation. {splits['labelled']} labels are learned from and {splits['validation']} more are for "
        f"validation; {splits['pool']:,} images have none. Intervals: Student's t over the draws for a row, paired "
        "bootstrap over draws and images for a comparison. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, device {machine['device']}; "
        f"{seconds / 60:.1f} minutes in all, beside other work. {versions}. "
        f"{figures['date'][:10]}, commit {figures['commit'][:10]}."
    )


if __name__ == "__main__":
    main()

"""Ways to a cat-and-dog classifier from a thousand photos, each with its minutes: docs/transfer.md.

    python benchmarks/transfer.py --photos PATH/dogs-vs-cats --weights PATH/mobilenet_v2.safetensors

Each row of the table is a `potstill finetune` with some settings changed, all with the same splits and the same
budget of epochs; the test photos are asked once, at the end of each. A row that was made is not made again, so the
command goes on where it stopped. Every row decodes its photos and computes its features itself, so its minutes are
all that it costs. `--seeds` and `--only` do a part of the table, `--table` makes no row. `--json` and `--markdown`
write what is there, the latter between the two comments of docs/transfer.md.

The weights: torchvision's mobilenet_v2, normalised as torchvision does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import artifacts
from potstill.config import build
from potstill.evaluation.statistics import mean_interval
from potstill.stages.finetune import FinetuneConfig, finetune
from potstill.stages.summary import machine, versions

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, SCRATCH_SIDE = 225, 161  # pixels; 32 n + 1 suits the padding these weights were trained with
EPOCHS = 4
FEATURES: dict[str, Any] = {"unfreeze": "none", "views": 0}
SCRATCH: dict[str, Any] = {"views": 0, "data": {"size": SCRATCH_SIDE}, "from_scratch": True}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch": ("from scratch", {**SCRATCH, "augment": "none"}),
    "scratch-augmented": ("from scratch, augmentation", SCRATCH),
    "features": ("features, probe", FEATURES),
    "features-views": ("features of 8 augmented views, probe", {**FEATURES, "views": 8}),
    "top": ("probe, then the last 2 stages", {"views": 0, "unfreeze": 2}),
    "all": ("probe, then the whole network", {"views": 0, "unfreeze": "all"}),
}
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
ONE_SEED = ("features",)  # nothing in them is drawn


def settings(name: str, photos: Path, weights: Path, seed: int) -> FinetuneConfig:
    """Return the transfer of a row."""
    changes = dict(ROWS[name][1])
    pretrained = {} if changes.get("from_scratch") else {"weights": str(weights), "mean": MEAN, "std": STD}
    data = {"path": str(photos), "size": SIDE, **changes.pop("data", {})}
    train = {"epochs": EPOCHS, "precision": "bf16"}
    start = {"model": "torchvision:mobilenet_v2", "seed": seed, "train": train}
    return build(FinetuneConfig, {**start, **pretrained, "data": data, **changes})


def make(name: str, seed: int, args: argparse.Namespace) -> None:
    """Make a row for one seed, where it is not made yet; keep its processor time beside it."""
    folder = args.out / name / f"seed-{seed}"
    if artifacts.finished(folder):
        return
    cache = args.out / "cache" / f"{name}-{seed}"
    os.environ["POTSTILL_CACHE"] = str(cache)
    wall, processor = time.monotonic(), time.process_time()
    finetune(settings(name, args.photos, args.weights, seed), folder, command=shlex.join(sys.argv))
    spent = {"wall": time.monotonic() - wall, "processor": time.process_time() - processor}
    artifacts.write_json(folder / "spent.json", {key: round(value, 1) for key, value in spent.items()})
    artifacts.remove(cache)
    print(name, seed, spent, flush=True)


def rows(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of each row that is there."""
    for name, (title, changes) in ROWS.items():
        folders = sorted(folder for folder in (out / name).glob("seed-*") if (folder / "spent.json").is_file())
        if not folders:
            continue
        found = [artifacts.read_json(folder / "summary.json") for folder in folders]
        spent = [artifacts.read_json(folder / "spent.json") for folder in folders]
        model = "tuned" if "tuned" in found[0]["models"] else "probe"
        yield {
            "name": name,
            "title": title,
            "pixels": changes.get("data", {}).get("size", SIDE),
            "test_accuracy": [summary["models"][model]["accuracy"] for summary in found],
            "delivered_accuracy": [summary["models"][summary["kept"]]["accuracy"] for summary in found],
            "kept": [summary["kept"] for summary in found],
            "choice": [summary["choice"] for summary in found],
            "probe_seconds": [(summary["probe"] or {}).get("seconds") for summary in found],
            "processor_minutes": [round(each["processor"] / 60, 2) for each in spent],
            "wall_minutes": [round(each["wall"] / 60, 2) for each in spent],
            "splits": found[0]["data"]["splits"],
        }


def table(made: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    head = "| way | pixels | seeds | test accuracy | delivered | minutes on two cores |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(_line(row) for row in made)]) + "\n"


def _line(row: dict[str, Any]) -> str:
    accuracy, minutes = row["test_accuracy"], np.mean(row["processor_minutes"]) / 2
    cells = (row["title"], row["pixels"], len(accuracy), _spread(accuracy), _spread(row["delivered_accuracy"]))
    return "| " + " | ".join(str(cell) for cell in (*cells, f"{minutes:.1f}")) + " |"


def _spread(values: list[float]) -> str:
    interval = mean_interval(np.array(values))
    shown = f"{np.mean(values):.2f} %"
    return shown if interval is None else f"{shown} ({min(values):.2f} to {max(values):.2f})"


def record(args: argparse.Namespace) -> None:
    """Write the figures as JSON, and print the table."""
    made = list(rows(args.out))
    facts = {
        "command": "python benchmarks/transfer.py --photos dogs-vs-cats --weights mobilenet_v2.safetensors",
        "commit": args.commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {**machine(), "system": platform.system()},
        "versions": versions(),
        "epochs": EPOCHS,
        "rows": made,
    }
    if args.json:
        args.json.write_text(json.dumps(facts, indent=1) + "\n")
    if args.markdown:
        before, _, rest = args.markdown.read_text().partition(BEGIN)
        args.markdown.write_text(f"{before}{BEGIN}\n{table(made)}{END}{rest.partition(END)[2]}")
    print(table(made))


def main() -> None:
    """Make rows, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="make no row")
    parser.add_argument("--commit", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in [] if args.table else args.seeds:
        for name in args.only:
            if seed == 0 or name not in ONE_SEED:
                make(name, seed, args)
    record(args)


if __name__ == "__main__":
    main()

"""Seconds that a probe takes: one penalty, and the whole choice by five folds, on 1,000 images in 8 views each.

    python benchmarks/probe.py [--classes 2] [--features 1280] [--record]

Features are drawn: class means in 40 hidden dimensions, noise, a ReLU. The bars are 2 and 60 seconds on two cores; the
time of one penalty has in it what the first probe of a process imports.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peers.bars import provenance, where
from results import record

from potstill.data.formats import from_arrays
from potstill.data.manifest import Manifest
from potstill.stages.finetune.probe import probe

IMAGES, VIEWS, HIDDEN = 1000, 8, 40
TASKS = (("one penalty", 0.01, 2), ("choice among penalties by five folds", None, 60))


@dataclass
class Drawn:
    """What `probe` asks of stored features, from arrays [N, V, D]; the first view is the clean one."""

    values: np.ndarray
    layers: tuple[str, ...] = ("pooled",)

    def of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        return self.values[rows, 0]

    def views_of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        return self.values[rows]


def world(classes: int, width: int) -> tuple[Drawn, Manifest]:
    """Return features of images whose classes overlap a little."""
    random = np.random.default_rng(0)
    hidden = random.normal(size=(IMAGES, HIDDEN)).astype(np.float32)
    label = (hidden[:, :classes] + 0.5 * random.normal(size=(IMAGES, classes))).argmax(1)
    shown = (hidden @ random.normal(size=(HIDDEN, width)).astype(np.float32))[:, None]
    noise = 3 * random.standard_normal((IMAGES, VIEWS, width), dtype=np.float32)
    images = random.integers(0, 256, (IMAGES, 4, 4), dtype=np.uint8)
    splits = np.full(IMAGES, "train")
    return Drawn(np.maximum(shown + noise, 0)), from_arrays(images, label, splits=splits, root="drawn")


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds of a piece of work: wall, and of all processors together."""
    wall, processor = time.monotonic(), time.process_time()
    work()
    return {"wall": round(time.monotonic() - wall, 2), "processor": round(time.process_time() - processor, 2)}


def table(found: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| 1,000 images in 8 views | seconds | of all processors | bar |", "|---|---:|---:|---:|"]
    lines += [f"| {row['task']} | {row['wall']:.2f} | {row['processor']:.2f} | {row['bar']} |" for row in found]
    return "\n".join(lines)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="also write RESULTS.json and RESULTS.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    features, manifest = world(given.classes, given.features)
    found = []
    for task, penalty, bar in TASKS:
        taken = timed(lambda p=penalty: probe(features, manifest, penalty=p, folds=5, seed=0))
        found.append({"task": task, **taken, "bar": bar, "met": taken["wall"] < bar})
    facts = {**provenance(given.threads), "classes": given.classes, "features": given.features}
    print(table(found))
    print(json.dumps(facts))
    if given.record:
        record("probe", {**facts, "results": found}, f"{table(found)}\n\n{where(facts)}")


if __name__ == "__main__":
    main()

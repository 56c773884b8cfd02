"""What the execution plan that `training/autotune.py` chooses gains over plain training: fp32, contiguous, eager.

    python benchmarks/plan.py [--threads 2]

For ResNet-20 (32 x 32 pixels, batches of 128) and MobileNetV2 (112 x 112, batches of 32): steps forwards and backwards
of both plans in turns, medians and fastest. The plan is chosen anew, for a training of 20 epochs of 10,000 images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time

import torch
from peers.bars import provenance

from potstill.models import zoo
from potstill.training.autotune import ExecutionPlan, Trial, choose

NETWORKS = (("builtin:resnet20-cifar", 32, 128), ("mobilenetv2_100", 112, 32))
IMAGES = 200_000
TURNS = 15


def compare(name: str, size: int, batch: int) -> dict[str, object]:
    """Return the plan for a network, and the median seconds of a step of plain training and of the plan."""
    classifier = zoo.create(name, classes=[str(k) for k in range(10)], size=(size, size), channels=3)
    began = time.perf_counter()
    plan = choose(classifier, precision="auto", compile="auto", batch_size=batch, images=IMAGES, training=True)
    chosen_in = time.perf_counter() - began
    trial = Trial(classifier, batch, training=True)
    sides = {"plain": trial.step(ExecutionPlan()), "planned": trial.step(plan)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(-2, TURNS):
        for side, step in sides.items():
            start = time.perf_counter()
            step()
            if turn >= 0:
                times[side].append(time.perf_counter() - start)
    facts: dict[str, object] = {"network": name, "size": size, "batch": trial.batch_size, "plan": plan.words}
    facts["choosing_seconds"] = round(chosen_in, 1)
    for figure, of in (("median", statistics.median), ("fastest", min)):
        plain, planned = (of(times[side]) for side in sides)
        facts[figure] = {"plain_ms": round(1000 * plain, 1), "planned_ms": round(1000 * planned, 1)}
        facts[f"gain_{figure}"] = round(plain / planned, 2)
    return facts


def main() -> None:
    """Print a line a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["POTSTILL_CACHE"] = cache  # a plan that was chosen before is not looked up
        for network in NETWORKS:
            print(json.dumps(compare(*network)), flush=True)
    print(json.dumps(provenance(given.threads)))


if __name__ == "__main__":
    main()

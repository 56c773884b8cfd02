"""How often is a difference reported between equal models? Comparisons of equals, and a teacher that knows nothing.

    python benchmarks/honesty.py [--comparisons 200] [--noise 50] [--record docs/honesty]

A/A: a control is compared with itself. Every comparison has `SEEDS` models on either side, all trained from seeds
that no other comparison uses (so `comparisons` x 2 x `SEEDS` trainings), on the same images and judged on the same
test split by the very function that a run uses (`measure.statistics.compare`). Nothing differs but luck: BEATS should
come up in at most 5 % of them. From the same models the rate for other numbers of seeds is counted as well.

Noise: a teacher whose logits are random numbers, other ones in every comparison, teaches with the default objective;
student and control have the same seeds, as in a run. It must never be called BEATS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.config import build
from potstill.data.loader import Batch, Order
from potstill.evaluation.statistics import compare, proportion_interval
from potstill.models.outputs import Outputs
from potstill.objectives.objective import Objective, Term, lecture_terms
from potstill.stages import dataset, summary
from potstill.stages.dataset import Data
from potstill.stages.distill.train import new_student
from potstill.stages.recipe import Recipe
from potstill.teachers.base import Teacher
from potstill.training import engine, predict

SEEDS = 3  # as in a run
NOISE_SCALE = 3.0  # standard deviation of the noise teacher's logits: it is as sure of itself as a real one
RECIPE = {
    "name": "honesty",
    "data": {"path": "digits"},
    "student": {"model": "builtin:mlp", "options": {"hidden": 16}},
    "train": {"epochs": 12, "batch_size": 256, "lr": 0.02, "weight_decay": 0.0001},
    "augment": "none",
}


@dataclass(frozen=True)
class World:
    """What all trainings share: images, recipe, and the answers of the test split."""

    recipe: Recipe
    data: Data

    @classmethod
    def make(cls) -> World:
        """Return scikit-learn's digits and a small MLP, trained for 48 steps."""
        recipe = build(Recipe, RECIPE)
        return cls(recipe, dataset.prepare(recipe.data))

    def right(self, seed: int, terms: Sequence[Term], teacher: Teacher | None = None) -> np.ndarray:
        """Train from `seed`; return bool [N], on which test images the model is right."""
        data, train = self.data, self.recipe.train
        student, loader = new_student(self.recipe.student, data, seed), data.loader()
        order = Order(data.manifest, batch_size=train.batch_size, seed=seed, views=1)
        objective = Objective(terms, classes=len(data.manifest.classes), teacher=teacher)
        with tempfile.TemporaryDirectory() as folder:
            engine.fit(student, objective, loader, order, train, folder=Path(folder), seed=seed)
        rows = data.manifest.rows("test")
        return predict.predict_logits(student, loader, rows).argmax(1) == data.manifest.label[rows]

    def noise(self, seed: int) -> Teacher:
        """Return a teacher that says the same random logits of an image whenever it is asked."""
        count = len(self.data.manifest), len(self.data.manifest.classes)
        logits = NOISE_SCALE * torch.randn(count, generator=torch.Generator().manual_seed(seed))

        def teacher(batch: Batch) -> Outputs:
            return Outputs(logits[batch.index])

        return teacher


def controls(world: World, count: int) -> np.ndarray:
    """Return bool [count, N]: controls trained from seeds 0..count-1."""
    return np.stack([world.right(seed, [Term(loss="cross_entropy")]) for seed in range(count)])


def against_itself(pool: np.ndarray, seeds: int) -> dict[str, Any]:
    """Compare disjoint groups of the pool, `seeds` models on either side; return how often each verdict came up.

    With one seed it is what the interval says: the verdict leaves it at TIES, for the reason that this shows.
    """
    groups = len(pool) // (2 * seeds)
    sides = pool[: groups * 2 * seeds].reshape(groups, 2, seeds, -1)
    return counted([compare(one, other, trained=seeds > 1).result for one, other in sides])


def against_noise(world: World, pool: np.ndarray, comparisons: int) -> dict[str, Any]:
    """Teach students with noise, each group of seeds with its own; return how often each verdict came up."""
    terms = lecture_terms(alpha=world.recipe.objective.alpha, temperature=world.recipe.objective.temperature)
    verdicts = []
    for number in range(comparisons):
        seeds = range(number * SEEDS, (number + 1) * SEEDS)
        students = np.stack([world.right(seed, terms, world.noise(number)) for seed in seeds])
        verdicts.append(compare(students, pool[list(seeds)]).result)
    return counted(verdicts)


def counted(verdicts: Sequence[str]) -> dict[str, Any]:
    """Return the counts of BEATS, TIES and LOSES, and the 95 % interval of the share of BEATS."""
    counts = {name: verdicts.count(name) for name in ("BEATS", "TIES", "LOSES")}
    low, high = proportion_interval(counts["BEATS"], len(verdicts))
    return {"comparisons": len(verdicts), **counts, "beats_interval": [round(low, 2), round(high, 2)]}


def measure(comparisons: int, noise: int) -> dict[str, Any]:
    """Return every figure of docs/honesty.json."""
    began, code = time.monotonic(), commit()
    world = World.make()
    pool = controls(world, max(comparisons * 2 * SEEDS, noise * SEEDS))
    accuracy = 100 * pool.mean(axis=1)
    return {
        "seeds": SEEDS,
        "trainings": len(pool) + noise * SEEDS,
        "images": int(pool.shape[1]),
        "accuracy": {"mean": round(float(accuracy.mean()), 2), "spread": round(float(accuracy.std(ddof=1)), 2)},
        "against_itself": against_itself(pool, SEEDS),
        "other_seeds": {str(seeds): against_itself(pool, seeds) for seeds in (1, 2, 5)} if comparisons >= 100 else {},
        "noise_teacher": against_noise(world, pool, noise),
        "recipe": world.recipe.to_json(),
        "machine": summary.machine(),
        "versions": summary.versions(),
        "commit": code,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - began, 1),
    }


def commit() -> str:
    """Return the commit of the checkout."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return told.stdout.strip()


def page(found: dict[str, Any], command: str) -> str:
    """Return docs/honesty.md."""
    own, noise = found["against_itself"], found["noise_teacher"]
    rates = {**found["other_seeds"], str(found["seeds"]): own}
    others = "".join(
        f"| {seeds} | {one['comparisons']} | {one['BEATS']} ({100 * one['BEATS'] / one['comparisons']:.1f} %) "
        f"| {one['LOSES']} ({100 * one['LOSES'] / one['comparisons']:.1f} %) |\n"
        for seeds, one in sorted(rates.items(), key=lambda pair: int(pair[0]))
    )
    low, high = own["beats_interval"]
    return f"""# How often is a difference reported between equal models?

The verdict is tested on comparisons of equal models.
`{command}` makes this page.

## A control against itself

{own["comparisons"]} comparisons of a control with itself under other seeds: {found["seeds"]} models on either side,
all {own["comparisons"] * 2 * found["seeds"]:,} trained from different seeds, no model in two comparisons. **BEATS came
up {own["BEATS"]} times ({100 * own["BEATS"] / own["comparisons"]:.1f} %; 95 % interval {low:.1f} to {high:.1f} %)**,
LOSES {own["LOSES"]} times, TIES {own["TIES"]} times. At most 5 % may be BEATS.

The same models, compared with other numbers of seeds on either side:

| seeds | comparisons | BEATS | LOSES |
| ---: | ---: | ---: | ---: |
{others}
With one seed the variation between seeds cannot be estimated: the interval covers the images only, and its row shows
how often it would have been wrong. So a run with one seed is called TIES whatever its interval, the sentence says why,
and three seeds are the default.

## A teacher that knows nothing

In {noise["comparisons"]} comparisons the teacher's logits were random numbers (normal, standard deviation
{NOISE_SCALE:g}, others in every comparison), with the default objective and {found["seeds"]} seeds: **BEATS came up
{noise["BEATS"]} times**, LOSES {noise["LOSES"]} times, TIES {noise["TIES"]} times. None may be BEATS.

## What was trained

scikit-learn's digits, {found["images"]} test images; an MLP with 16 hidden units, {found["recipe"]["train"]["epochs"]}
epochs in batches of {found["recipe"]["train"]["batch_size"]}, no augmentation: {found["accuracy"]["mean"]} % on
average, with a standard deviation of {found["accuracy"]["spread"]} points over seeds. {found["trainings"]:,} trainings
in {found["seconds"]:.0f} s on {found["machine"]["cpu"]} ({found["machine"]["cores"]} cores, 1 thread used, shared with
other work). torch {found["versions"]["torch"]}, numpy {found["versions"]["numpy"]}, Python
{found["machine"]["python"]}; commit {found["commit"][:12]}, {found["date"]}. Every figure is in `honesty.json`.
"""


def main() -> None:
    """Measure, print, and record where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--noise", type=int, default=50)
    parser.add_argument("--record", type=Path, help="write FILE.md and FILE.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.comparisons, given.noise)
    command = f"python benchmarks/honesty.py --comparisons {given.comparisons} --noise {given.noise}"
    print(page(found, command))
    if given.record:
        given.record.with_suffix(".json").write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
        given.record.with_suffix(".md").write_text(page(found, command), encoding="utf-8")


if __name__ == "__main__":
    main()

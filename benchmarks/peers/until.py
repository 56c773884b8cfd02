"""Minutes until a test accuracy: how long each loop has to train the same student until it is that good.

Each budget of epochs is a training of its own, whose learning rate falls to its end, so the shortest that reaches the
accuracy counts. What is finished is kept in a folder, so that trainings of an hour can be measured one after another.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from potstill import progress
from potstill.models.outputs import Classifier
from potstill.torch_context import threads as limited
from potstill.words import plural

from . import rivals
from .accuracy import Plain, Potstill, accuracies, answers
from .bars import Bar, judge, provenance
from .world import BATCH, STUDENT, World

BARS = {
    "over_plain": Bar(3.0, False, "minutes of the plain loop until the accuracy / minutes of potstill"),
    "over_torchdistill": Bar(3.3, False, "minutes of torchdistill's recipe until the accuracy / minutes of potstill"),
}
LOOPS = ("potstill", "plain", "torchdistill")


def measure(
    world: World,
    test: World,
    target: float,
    *,
    loops: Sequence[str] = LOOPS,
    budgets: Sequence[int] = (8, 16, 32, 64),
    views: int = 2,
    threads: int = 2,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Return the trainings of each loop, from the shortest budget of epochs to the first that reaches `target` percent.

    "loops": by name a list of {"epochs", "minutes", "accuracy"}; the minutes include the teacher's answers. keep: a
    folder of finished trainings, which are not trained again. One seed.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in loops}
    with (
        limited(threads),
        tempfile.TemporaryDirectory() as scratch,
        progress.task("training", len(loops) * len(budgets)) as task,
    ):
        for name in loops:
            for epochs in budgets:
                one = _kept(keep, name, epochs)
                if one is None:
                    task.advance(text=f"{name}, {plural(epochs, 'epoch')}")
                    one = _trained(name, world, test, epochs, views, Path(scratch) / f"{name}-{epochs}")
                    _keep(keep, name, one)
                found[name].append(one)
                if one["accuracy"] >= target:
                    break
    settings = {"target": target, "images": len(world.label), "test_images": len(test.label), "views": views}
    figures = {f"over_{name}": _ratio(found, name, target) for name in LOOPS[1:]}
    return {
        "figures": figures,
        "bars": judge(BARS, figures),
        "loops": found,
        "settings": settings,
        **provenance(threads),
    }


def _trained(name: str, world: World, test: World, epochs: int, views: int, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    if name == "potstill":
        student = Potstill(world, epochs, views, folder).trained(0)
    else:
        student = (Plain if name == "plain" else Torchdistill)(world, epochs).trained(0)
    minutes = (time.perf_counter() - began) / 60
    return {
        "epochs": epochs,
        "minutes": round(minutes, 4),
        "accuracy": accuracies([answers(student, test)], test.label)[0],
    }


class Torchdistill:
    """torchdistill's recipe for CIFAR-10, to its end: the learning rate falls to a tenth at 1/2 and at 3/4 of it."""

    def __init__(self, world: World, epochs: int) -> None:
        self._world, self._epochs = world, epochs

    def trained(self, seed: int) -> Classifier:
        """Return a student."""
        torch.manual_seed(seed)
        student = self._world.network(STUDENT, seed)
        step = rivals.their_training(self._world, student, epochs=self._epochs)
        for _ in range(self._epochs * (len(self._world.label) // BATCH)):
            step()
        return student.eval()


def _kept(keep: Path | None, name: str, epochs: int) -> dict[str, Any] | None:
    file = None if keep is None else keep / f"{name}-{epochs}.json"
    return None if file is None or not file.is_file() else json.loads(file.read_text())


def _keep(keep: Path | None, name: str, one: Mapping[str, Any]) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}-{one['epochs']}.json").write_text(json.dumps(one))


def _ratio(found: Mapping[str, list[dict[str, Any]]], name: str, target: float) -> float | None:
    """Return how many times as long a loop takes as potstill; None where one of them was not trained so far."""
    last = [found.get(one, [])[-1:] for one in (name, "potstill")]
    if not all(last) or any(one[0]["accuracy"] < target for one in last):
        return None
    return last[0][0]["minutes"] / last[1][0]["minutes"]


def table(found: Mapping[str, Any]) -> str:
    """Return every training as a line of a Markdown table."""
    lines = ["| loop | epochs | minutes | test accuracy % | |", "|---|---:|---:|---:|---|"]
    target = found["settings"]["target"]
    for name, trainings in found["loops"].items():
        for one in trainings:
            reached = "reached" if one["accuracy"] >= target else "not reached"
            lines.append(f"| {name} | {one['epochs']} | {one['minutes']:.4g} | {one['accuracy']:.2f} | {reached} |")
    settings = found["settings"]
    told = (
        f"Until {target:g} % of {settings['test_images']:,} test images; {settings['images']:,} training images; "
        f"one seed."
    )
    return "\n".join(lines) + "\n\n" + told

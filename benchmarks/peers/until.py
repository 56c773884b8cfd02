"""Minutes until a test accuracy: how long each loop has to train the same student until it is that good.

Each budget of epochs is a training of its own, whose learning rate falls to its end, so the shortest that reaches the
accuracy counts. What is finished is kept in a folder, so that trainings of an hour can be measured one after another;
an interrupted training of a rival goes on after its last epoch, and the minutes of all its parts are added. Each
training is a process of its own: ours in the environment that the `potstill` command sets, the others as published.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from potstill import progress
from potstill.models.outputs import Classifier
from potstill.runtime import keep_freed
from potstill.stages.summary import machine
from potstill.torch_context import threads as limited
from potstill.words import plural

from . import rivals
from .accuracy import Plain, Potstill, accuracies, answers
from .bars import Bar, in_a_process, judge, provenance
from .world import BATCH, STUDENT, World

BARS = {
    "over_plain": Bar(3.0, False, "minutes of the plain loop until the accuracy / minutes of potstill"),
    "over_torchdistill": Bar(3.3, False, "minutes of torchdistill's recipe until the accuracy / minutes of potstill"),
}
OURS, BLOCKS = "potstill", "potstill-blocks"  # the second starts with blocks of the teacher, unlike all others
RIVALS = ("plain", "torchdistill")
LOOPS = (OURS, *RIVALS, BLOCKS)


def measure(
    world: World,
    test: World,
    target: float,
    *,
    loops: Sequence[str] = (OURS, *RIVALS),
    budgets: Sequence[int] = (8, 16, 32, 64),
    views: Sequence[int] = (2,),
    weight_decay: float = rivals.SGD["weight_decay"],
    threads: int = 2,
    keep: Path | None = None,
    apart: bool = True,
) -> dict[str, Any]:
    """Return the trainings of each loop, from the shortest budget of epochs to the first that reaches `target` percent.

    "loops": by name a list of {"epochs", "views", "minutes", "accuracy"}; the minutes include the teacher's answers.
    views: of each image, for which potstill stores answers; each number is tried with every budget. The other loops
    have new ones in every epoch. weight_decay: of all loops. keep: a folder of finished trainings, which are not
    trained again. apart: each in a process of its own. One seed.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    tried = {name: list(itertools.product(budgets, views if name in (OURS, BLOCKS) else (None,))) for name in loops}
    with limited(threads), progress.task("training", sum(map(len, tried.values()))) as task:
        for name, trainings in tried.items():
            found[name] = []
            for epochs, count in trainings:
                task.advance(text=f"{name}, {plural(epochs, 'epoch')}")
                training = Training(name, epochs, count, weight_decay)
                found[name].append(_kept_or_trained(training, world, test, keep, apart=apart))
                if found[name][-1]["accuracy"] >= target:
                    break
    settings = {"target": target, "images": len(world.label), "test_images": len(test.label)}
    settings |= {**rivals.SGD, "weight_decay": weight_decay}
    figures = {f"over_{name}": _ratio(found, name, target) for name in RIVALS}
    return {
        "figures": figures,
        "bars": judge(BARS, figures),
        "loops": found,
        "settings": settings,
        **provenance(threads),
    }


@dataclass(frozen=True)
class Training:
    """One training of a loop. views: None where each epoch has new ones."""

    loop: str
    epochs: int
    views: int | None
    weight_decay: float

    @property
    def key(self) -> str:
        """Its name in a folder of finished trainings."""
        return "-".join(f"{part}" for part in (self.loop, self.epochs, self.views or "new", f"{self.weight_decay:g}"))

    @property
    def ours(self) -> bool:
        """Whether it is potstill's loop."""
        return self.loop in (OURS, BLOCKS)

    def measured(self, world: World, test: World, going: Path | None, threads: int) -> dict[str, Any]:
        """Train it; return its epochs, views, minutes, test accuracy in percent, and processors."""
        with limited(threads):
            student, seconds, machines = self.trained(world, going)
            accuracy = accuracies([answers(student, test)], test.label)[0]
        made = {"epochs": self.epochs, "views": self.views, "minutes": round(seconds / 60, 4), "accuracy": accuracy}
        return {**made, "machines": machines}

    def trained(self, world: World, going: Path | None) -> tuple[Classifier, float, list[str]]:
        """Return the student, the seconds, and the processors that were used; going: file of an unfinished rival."""
        sgd, began = {**rivals.SGD, "weight_decay": self.weight_decay}, time.perf_counter()
        if self.ours:
            assert self.views is not None
            keep_freed()
            with tempfile.TemporaryDirectory() as scratch:
                blocks = self.loop == BLOCKS
                student = Potstill(world, self.epochs, self.views, Path(scratch), sgd, blocks=blocks).trained(0)
            return student, time.perf_counter() - began, [machine()["cpu"]]
        torch.manual_seed(0)
        if self.loop == "plain":
            student, step = Plain(world, self.epochs, sgd=sgd).begun(0)
        else:
            student = world.network(STUDENT, 0)
            step = rivals.Theirs(world, student, epochs=self.epochs, sgd=sgd)
        seconds, machines = by_epochs(step, self.epochs, len(world.label) // BATCH, going)
        return student.eval(), seconds, machines


def by_epochs(step: rivals.Rival, epochs: int, steps: int, file: Path | None) -> tuple[float, list[str]]:
    """Train for a number of epochs; return the seconds of all of them, and the processors that were used.

    steps: of an epoch. file: holds the state after each epoch, with which a later call goes on, until the last one.
    """
    done, seconds, machines = 0, 0.0, [machine()["cpu"]]
    if file is not None and file.is_file():
        known = torch.load(file, weights_only=False)  # own file: optimizers keep more than tensors
        done, seconds, machines = known["done"], known["seconds"], sorted({*known["machines"], *machines})
        step.load_state_dict(known["state"])
    while done < epochs:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        done, seconds = done + 1, seconds + time.perf_counter() - began
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            written = file.with_suffix(".part")
            torch.save({"done": done, "seconds": seconds, "machines": machines, "state": step.state_dict()}, written)
            written.replace(file)
    return seconds, machines


def _kept_or_trained(
    training: Training, world: World, test: World, keep: Path | None, *, apart: bool
) -> dict[str, Any]:
    """Return a training on as many images that is kept in a folder, or train it and keep it there."""
    file = None if keep is None else keep / f"{training.key}-{len(world.label)}.json"
    if file is not None and file.is_file():
        return json.loads(file.read_text())
    going = None if file is None else file.with_suffix(".pt")
    given = (training, world, test, going, torch.get_num_threads())
    one = run_apart(Training.measured, *given, ours=training.ours) if apart else Training.measured(*given)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(one))
    return one


def run_apart(function: Callable[..., Any], *given: Any, ours: bool) -> Any:
    """Return what a function returns in a process of its own. ours: in the environment of the `potstill` command."""
    before = dict(os.environ)
    spawn = multiprocessing.get_context("spawn")  # torch reads the environment when it is imported
    usual = multiprocessing.get_start_method()  # for the workers of a DataLoader in it
    with ProcessPoolExecutor(1, spawn, _start_processes_by, (usual,)) as executor:
        try:
            os.environ.clear()
            os.environ.update(in_a_process(ours=ours))
            asked = executor.submit(function, *given)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return asked.result()


def _start_processes_by(method: str) -> None:
    multiprocessing.set_start_method(method, force=True)


def _ratio(found: Mapping[str, list[dict[str, Any]]], name: str, target: float) -> float | None:
    """Return how many times as long a loop takes as potstill; None where one of them was not trained so far."""
    last = [found.get(one, [])[-1:] for one in (name, OURS)]
    if not all(last) or any(one[0]["accuracy"] < target for one in last):
        return None
    return last[0][0]["minutes"] / last[1][0]["minutes"]


def table(found: Mapping[str, Any]) -> str:
    """Return every training as a line of a Markdown table."""
    lines = ["| loop | epochs | views of each image | minutes | test accuracy % | |", "|---|---:|---:|---:|---:|---|"]
    target = found["settings"]["target"]
    for name, trainings in found["loops"].items():
        for one in trainings:
            reached = "reached" if one["accuracy"] >= target else "not reached"
            views = one["views"] or one["epochs"]
            cells = [name, one["epochs"], views, f"{one['minutes']:.4g}", f"{one['accuracy']:.2f}", reached]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    settings = found["settings"]
    told = (
        f"Until {target:g} % of {settings['test_images']:,} test images; {settings['images']:,} training images; SGD "
        f"at {settings['lr']:g} with a weight decay of {settings['weight_decay']:g}; one seed."
    )
    used = sorted({name for trainings in found["loops"].values() for one in trainings for name in one["machines"]})
    if len(used) > 1:
        told += f" Trained on {' and '.join(used)}, whose minutes are not comparable."
    return "\n".join([*lines, "", told])

"""Whether the faster loop learns as much: the published loop and potstill's, on the same images for the same epochs.

Both train the same students, from the same initial weights, by SGD with the same falling learning rate, on a part of
CIFAR-10; the published loop asks a live fp32 teacher about ever new views, potstill reads what the teacher said of a
few. The test images are looked at once, at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import progress
from potstill.data.loader import Order
from potstill.evaluation import metrics
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, lecture_terms
from potstill.stages.summary import verdict
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.torch_context import threads as limited
from potstill.training import devices, engine, predict
from potstill.training.settings import TrainConfig
from potstill.words import plural

from . import sides
from .bars import Bar, judge, provenance
from .rivals import PUBLISHED, SGD, VARIANTS, Published, Variant
from .world import ALPHA, BATCH, STUDENT, TEACHER, TEMPERATURE, World

BARS = {
    "upper_end": Bar(
        0.0, False, "upper end of the 95 % interval of test accuracy, potstill minus plain loop, in points"
    ),
}


def measure(
    world: World, test: World, *, epochs: int = 6, seeds: int = 3, views: int = 2, threads: int = 2
) -> dict[str, Any]:
    """Return {"figures", "accuracy": {"plain", "potstill"}, "seconds", "verdict", ...}; accuracies in percent."""
    with limited(threads), tempfile.TemporaryDirectory() as folder, progress.task("training", 2 * seeds) as task:
        sides_of = {"plain": Plain(world, epochs), "potstill": Potstill(world, epochs, views, Path(folder))}
        said: dict[str, list[np.ndarray]] = {name: [] for name in sides_of}
        seconds = {name: side.ready for name, side in sides_of.items()}
        for seed in range(seeds):
            for name, side in sides_of.items():
                began = time.perf_counter()
                student = side.trained(seed)
                seconds[name] += time.perf_counter() - began
                said[name].append(answers(student, test))
                task.advance(text=name)
    found = verdict(said["potstill"], said["plain"], test.label, TrainConfig())
    figures = {"difference": found.difference, "lower_end": found.interval[0], "upper_end": found.interval[1]}
    return {
        "figures": figures,
        "bars": judge(BARS, figures),
        "accuracy": {name: accuracies(logits, test.label) for name, logits in said.items()},
        "seconds": {name: round(took, 1) for name, took in seconds.items()},
        "verdict": found.to_json(),
        "settings": {"images": len(world.label), "epochs": epochs, "views": views},
        **provenance(threads),
    }


def explain(world: World, test: World, *, epochs: int = 6, seeds: int = 3, threads: int = 2) -> dict[str, Any]:
    """Return the test accuracies, percent by seed, of the published loop with each of potstill's differences alone."""
    found: dict[str, list[float]] = {}
    with limited(threads), progress.task("training", len(VARIANTS) * seeds) as task:
        for name, variant in VARIANTS.items():
            found[name] = []
            for seed in range(seeds):
                logits = answers(Plain(world, epochs, variant).trained(seed), test)
                found[name] += accuracies([logits], test.label)
                task.advance(text=name)
    settings = {"images": len(world.label), "test_images": len(test.label), "epochs": epochs}
    return {"figures": {}, "bars": {}, "accuracy": found, "settings": settings, **provenance(threads)}


class Plain:
    """The published loop, to its end."""

    def __init__(self, world: World, epochs: int, variant: Variant = PUBLISHED, sgd: Mapping[str, float] = SGD) -> None:
        self._world, self._steps, self.ready = world, epochs * (len(world.label) // BATCH), 0.0
        self._variant, self._sgd = variant, sgd

    def trained(self, seed: int) -> Classifier:
        """Return a student."""
        torch.manual_seed(seed)
        student, step = self.begun(seed)
        for _ in range(self._steps):
            step()
        return student.eval()

    def begun(self, seed: int) -> tuple[Classifier, Published]:
        """Return a student, and the training of which it takes steps."""
        student = self._world.network(STUDENT, seed)
        return student, Published(self._world, student, steps=self._steps, variant=self._variant, sgd=self._sgd)


class Potstill:
    """potstill's loop as `sides` measures it, to its end. ready: seconds until the first student could begin.

    blocks: the students start with blocks of the teacher.
    """

    def __init__(
        self,
        world: World,
        epochs: int,
        views: int,
        folder: Path,
        sgd: Mapping[str, float] = SGD,
        *,
        blocks: bool = False,
    ) -> None:
        began = time.perf_counter()
        self._world, self._views, self._folder, self._blocks = world, views, folder, blocks
        self._loader, self._plan = sides.loader_of(world), sides.student_plan(world)
        self._store = Store(folder / "answers", np.arange(len(world.label)), views, {"teacher": "resnet56"})
        teacher = world.network(TEACHER).to(devices.device())
        predict.fill_store(self._store, teacher, self._loader, precision=sides.teacher_plan(world))
        self._config = TrainConfig(epochs=epochs, batch_size=BATCH, optimizer="sgd", warmup=0.0, **sgd)
        self.ready = time.perf_counter() - began

    def trained(self, seed: int) -> Classifier:
        """Return a student."""
        student = self._world.network(STUDENT, seed, blocks=self._blocks).to(devices.device())
        objective = Objective(
            lecture_terms(alpha=ALPHA, temperature=TEMPERATURE), classes=10, teacher=StoredTeacher(self._store, 10)
        )
        order = Order(self._loader.manifest, batch_size=BATCH, seed=seed, views=self._views)
        folder = self._folder / str(seed)
        engine.fit(student, objective, self._loader, order, self._config, folder=folder, seed=seed, plan=self._plan)
        return student


def accuracies(logits: list[np.ndarray], label: np.ndarray) -> list[float]:
    """Return percent, a seed each."""
    return [round(metrics.accuracy(one, label), 3) for one in logits]


def answers(student: Classifier, test: World) -> np.ndarray:
    """Return logits for the images of `test`, [N, classes]."""
    loader = sides.loader_of(test)
    return predict.predict_logits(student.to(devices.device()), loader, np.arange(len(test.label)))


def table(found: Mapping[str, Any]) -> str:
    """Return accuracies and seconds as a Markdown table, and the verdict."""
    lines = ["| loop | test accuracy % | seeds | seconds of training |", "|---|---:|---|---:|"]
    for name, values in found["accuracy"].items():
        each = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {name} | {sum(values) / len(values):.2f} | {each} | {found['seconds'][name]:.0f} |")
    low, high = found["verdict"]["interval"]
    settings = found["settings"]
    result = found["verdict"]
    told = (
        f"{result['result']}: potstill minus plain is {result['difference']:+.2f} points (95 % interval "
        f"{low:+.2f} to {high:+.2f}; {plural(result['seeds'], 'seed')}, {plural(result['images'], 'test image')}); "
        f"{plural(settings['images'], 'training image')}, {plural(settings['epochs'], 'epoch')}, "
        f"{plural(settings['views'], 'view')}."
    )
    return "\n".join(lines) + "\n\n" + told


def explained(found: Mapping[str, Any]) -> str:
    """Return what `explain` found as a Markdown table: the published loop, then each difference alone."""
    plain = np.mean(found["accuracy"]["published"])
    lines = ["| published loop with | test accuracy % | seeds | difference, points |", "|---|---:|---|---:|"]
    for name, values in found["accuracy"].items():
        each, mean = ", ".join(f"{value:.2f}" for value in values), float(np.mean(values))
        lines.append(f"| {name} | {mean:.2f} | {each} | {mean - plain:+.2f} |")
    settings = found["settings"]
    told = (
        f"{settings['images']:,} training images, {settings['epochs']} epochs, {settings['test_images']:,} test images."
    )
    return "\n".join(lines) + "\n\n" + told

"""The sides of the speed benchmark. Each is a function that does one piece of work and returns how many images it was.

`speed.SIDES` says what they are; the rivals stand in `rivals`.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from potstill.data.augment import parse_policy
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.losses.logits import kd
from potstill.objectives.objective import Objective, Term, lecture_terms
from potstill.runtime import keep_freed
from potstill.teachers.prediction_store import PART_ROWS, Store
from potstill.teachers.stored import StoredTeacher
from potstill.torch_context import autocast
from potstill.training import devices, engine, predict
from potstill.training.autotune import ExecutionPlan, choose
from potstill.training.loop import Job
from potstill.training.settings import TrainConfig

from .rivals import SGD, Step, plain, torchdistill
from .world import ALPHA, BATCH, MEAN, STD, STUDENT, TEACHER, TEMPERATURE, World

VIEWS = 2
AS_IF = 50_000 * 30  # images of the training that the machine's measurement is told of: 30 epochs of CIFAR-10


def loader_of(world: World) -> Loader:
    """Return a loader with the usual augmentation of CIFAR-10."""
    manifest = world.manifest
    pixels = load_pixels(manifest, size=(32, 32), resize=32, channels=3)
    return Loader(manifest, pixels, View(parse_policy("cifar"), size=(32, 32), seed=0), device=devices.device())


def student_plan(world: World) -> ExecutionPlan:
    """Return how the student is trained on this machine."""
    student = world.network(STUDENT).to(devices.device())
    return choose(student, precision="auto", compile="auto", batch_size=BATCH, images=AS_IF, training=True)


def teacher_plan(world: World) -> ExecutionPlan:
    """Return how the teacher is asked on this machine."""
    precision = predict.resolve_precision("auto", devices.device(), world.network(TEACHER), AS_IF)
    return predict.inference_plan(precision, world.network(TEACHER))


def potstills(world: World, folder: Path, *, teacher: bool) -> Step:
    """Return a step of potstill's own loop, as the command line runs it."""
    keep_freed()
    loader = loader_of(world)
    terms, taught = (Term(loss="cross_entropy"),), None
    if teacher:
        store = Store(folder / "answers", np.arange(len(world.label)), VIEWS, {"teacher": "resnet56"})
        predict.fill_store(store, world.network(TEACHER).to(devices.device()), loader, precision=teacher_plan(world))
        terms, taught = lecture_terms(alpha=ALPHA, temperature=TEMPERATURE), StoredTeacher(store, 10)
    config = TrainConfig(epochs=10_000, batch_size=BATCH, optimizer="sgd", **SGD)
    order = Order(loader.manifest, batch_size=BATCH, seed=0, views=VIEWS)
    objective = Objective(terms, classes=10, teacher=taught)
    job = Job(world.network(STUDENT).to(devices.device()), objective, loader, order, config, folder, seed=0)
    run = engine.start_or_resume(job, student_plan(world))

    def step() -> int:
        run.train_step()
        if run.step % order.steps_per_epoch == 0:
            run.end_epoch()
        run.save_now_and_then(engine.CHECKPOINT_SECONDS)
        return BATCH

    return step


def hand(world: World, folder: Path) -> Step:
    """Return a step of a loop without a framework, for CPUs: arrays, indices, crops and flips by numpy."""
    keep_freed()
    plan = student_plan(world)
    classifier = world.network(STUDENT).to(memory_format=plan.memory_format).train()
    network = torch.compile(classifier.network, dynamic=False) if plan.compiled else classifier.network
    logits = torch.randn(VIEWS, len(world.label), 10)
    optimizer = torch.optim.SGD(network.parameters(), nesterov=True, fused=True, **SGD)
    padded = np.pad(world.images.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (32, 32), axis=(2, 3))
    label, dice = torch.from_numpy(world.label), np.random.default_rng(0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    batches = _endless(len(label), dice)

    def step() -> int:
        epoch, rows = next(batches)
        top, left = dice.integers(0, 9, (2, BATCH))
        image = windows[rows, :, top, left]
        flipped = dice.random(BATCH) < 0.5
        image[flipped] = image[flipped, :, :, ::-1]
        image = torch.from_numpy(np.divide(image, np.float32(255)))
        chosen = torch.from_numpy(rows)
        with autocast(image.device, plan.precision):
            said = network(((image - mean) / std).contiguous(memory_format=plan.memory_format)).float()
        loss = ALPHA * F.cross_entropy(said, label[chosen])
        loss = loss + (1 - ALPHA) * kd(said, logits[epoch % VIEWS, chosen], temperature=TEMPERATURE).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return BATCH

    return step


def _endless(count: int, dice: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    for epoch in itertools.count():
        order = dice.permutation(count)
        yield from ((epoch, order[at : at + BATCH]) for at in range(0, count - BATCH + 1, BATCH))


def store(world: World, folder: Path) -> Step:
    """Return the writing of one part of a store."""
    keep_freed()
    loader, teacher, plan = loader_of(world), world.network(TEACHER).to(devices.device()), teacher_plan(world)
    rows = np.arange(min(PART_ROWS, len(world.label)))

    def step() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            predict.fill_store(Store(Path(target), rows, 1, {}), teacher, loader, precision=plan)
        return len(rows)

    return step


def forward(world: World, folder: Path) -> Step:
    """Return the bare forward pass of the teacher over one batch that is ready in memory."""
    keep_freed()
    plan = teacher_plan(world)
    network = world.network(TEACHER).to(devices.device()).eval().network
    image = torch.rand(predict.evaluation_batch((32, 32), devices.device()), 3, 32, 32, device=devices.device())
    image = image.contiguous(memory_format=plan.memory_format)

    def step() -> int:
        with torch.inference_mode(), autocast(image.device, plan.precision):
            network(image)
        return len(image)

    return step


SIDES: dict[str, Callable[[World, Path], Step]] = {
    "stored": lambda world, folder: potstills(world, folder, teacher=True),
    "none": lambda world, folder: potstills(world, folder, teacher=False),
    "hand": hand,
    "store": store,
    "forward": forward,
    "plain, no workers": lambda world, folder: plain(world, folder, workers=0),
    "plain, 2 workers": lambda world, folder: plain(world, folder, workers=2),
    "torchdistill": torchdistill,
}

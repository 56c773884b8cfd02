"""Trainings as jobs: each is a student or a control of one recipe and seed, carried out here or in worker processes.

A job is plain data, and its result lies in a folder with a done marker, so that a job that is finished is never carried
out again, whoever did it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from potstill import artifacts, interruption, progress
from potstill.compress import quantize as quantizing
from potstill.config import build
from potstill.errors import RunError
from potstill.models.outputs import Classifier, bare
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.distill.files import calibration_images
from potstill.stages.distill.train import trainings
from potstill.stages.recipe import DataConfig, Recipe, TeacherConfig, Views
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.test_split import clean_logits
from potstill.stages.training import Trained
from potstill.torch_context import threads

CALIBRATION = 256  # training images for the ranges of activations
VALIDATED = "validated"
ORPHAN_SECONDS = 1.0  # how often a worker looks whether its parent is still there


Kind = Literal["student", "control"]


@dataclass(frozen=True)
class Job:
    """One training of a student or a control.

    recipe: as JSON. folder: of the experiment; stores: of the teacher's logits. bits: of the weights for which
    validation accuracy is simulated, besides float.
    """

    recipe: str
    folder: str
    stores: str
    kind: Kind
    seed: int
    bits: tuple[int, ...] = (8,)

    def of(self, kind: Kind, seed: int) -> Job:
        """Return the same training of another kind or seed."""
        return dataclasses.replace(self, kind=kind, seed=seed)

    @property
    def place(self) -> Path:
        """The folder of the trained model."""
        return Path(self.folder) / {"student": "distill", "control": "control"}[self.kind] / f"seed-{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The result of a job. seconds: of training. accuracy: on validation in percent, by bits, 32 for float.

    correct: bool [N] by bits: which labelled validation images are classified correctly.
    """

    seconds: float
    epochs: int
    accuracy: dict[int, float]
    correct: dict[int, np.ndarray]


def carry_out(job: Job) -> Outcome:
    """Train and validate, unless that is finished."""
    recipe = build(Recipe, json.loads(job.recipe))
    each = trainings(recipe, *prepared(recipe, Path(job.stores)), Path(job.folder), Path(job.stores))
    trained = each.student(job.seed) if job.kind == "student" else each.control(job.seed)
    correct = _validated(job, trained, each.data)
    return Outcome(
        seconds=trained.record["seconds"],
        epochs=recipe.train.epochs,
        accuracy={bits: 100 * float(right.mean()) for bits, right in correct.items()},
        correct=correct,
    )


def _validated(job: Job, trained: Trained, data: Data) -> dict[int, np.ndarray]:
    """Return which validation images are classified correctly by bits, computing what is not recorded."""
    inputs = {"weights": artifacts.fingerprint(trained.record)}
    place = job.place / VALIDATED
    every = (32, *job.bits)
    missing = [bits for bits in every if artifacts.finished(place / str(bits)) is None]
    marks = validated(trained.load(), data, missing) if missing else {}
    result = {}
    for bits in every:
        found = artifacts.stage(place / str(bits), inputs, lambda bits=bits: {"correct": marks[bits]})
        result[bits] = np.frombuffer(found["correct"].encode(), np.uint8) == ord("1")
    return result


def prepared(recipe: Recipe, stores: Path) -> tuple[Data, TeacherSource]:
    """Return data and teacher of a recipe; those of one process and one input size share them."""
    facts = {"data": recipe.data.to_json(), "teacher": recipe.teacher.to_json(), "seed": recipe.seed}
    return _prepared(json.dumps(facts), recipe.student.size or 0, stores)


@functools.lru_cache(maxsize=4)
def _prepared(facts: str, side: int, stores: Path) -> tuple[Data, TeacherSource]:
    settings = json.loads(facts)
    data = dataset.prepare(build(DataConfig, settings["data"]), at_least=side)
    teacher = build(TeacherConfig, settings["teacher"])
    place = stores / f"teacher-at-{side}" if side else stores / "teacher"
    return data, prepare_teacher(teacher, data, place, views=Views(), seed=settings["seed"])


def validated(model: Classifier, data: Data, bits: Sequence[int]) -> dict[int, str]:
    """Return which validation images a model classifies correctly, "1" or "0" each, by bits of its weights.

    32 is the float model; the others are simulated after post-training quantization, with 8-bit activations.
    """
    rows = data.manifest.rows("validation", labelled=True)
    label = data.manifest.label[rows]

    def marks(one: Classifier) -> str:
        return "".join("01"[int(right)] for right in clean_logits(one.eval(), data, rows).argmax(1) == label)

    result = {32: marks(model)} if 32 in bits else {}
    if few := [number for number in bits if number < 32]:
        plain = Classifier(bare(model.network), model.card).eval()
        images = plain.prepare(torch.from_numpy(calibration_images(plain, data, CALIBRATION)))
        floating = quantizing.fold_batchnorm(plain.network, images[:2])
        observed = quantizing.observe(floating, images.split(64))
        for number in few:
            result[number] = marks(Classifier(quantizing.quantized(floating, observed, weight_bits=number), model.card))
    return result


class Workers:
    """Carries out jobs, `count` at a time, in processes of one thread each; with one worker in this process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:  # otherwise a command that is stopped would wait for whole trainings
                for worker in multiprocessing.active_children():
                    worker.terminate()
            self._pool.shutdown(cancel_futures=True)

    def all(self, jobs: Sequence[Job], title: str) -> list[Outcome]:
        """Return the outcomes of jobs, in their order. Raises `RunError` if a process of them is killed."""
        with progress.task(title, total=len(jobs)) as task:
            if self._count == 1 or len(jobs) == 1 and self._pool is None:
                results = []
                for job in jobs:
                    results.append(carry_out(job))
                    task.advance(text=Path(job.folder).name)
                return results
            try:
                futures = [self._started.submit(_in_worker, job) for job in jobs]
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    task.advance()
            except BrokenProcessPool:
                raise RunError(
                    f"One of {self._count} worker processes that train was killed from outside, usually because "
                    "memory ran out. What they had finished is kept. Run the same command again, with --workers 1 if "
                    "memory is short."
                ) from None
        outcomes, notes = zip(*(future.result() for future in futures), strict=True)
        for sentence in dict.fromkeys(sentence for each in notes for sentence in each):
            progress.note(sentence)
        return list(outcomes)

    @property
    def _started(self) -> concurrent.futures.ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._count, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
        return self._pool


def _begin(parent: int) -> None:
    """Prepare a worker: it ends when its parent does, also when that was killed, so that nobody writes twice.

    Ctrl-C reaches all processes of a terminal; the parent hears it, and ends the workers with SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_worker(job: Job) -> tuple[Outcome, list[str]]:
    stopped = interruption.handled(signal.SIGTERM)  # after the step in progress, whose state is saved
    with stopped, progress.use(progress.Display()), progress.recorded() as notes, threads(1):
        return carry_out(job), list(notes)

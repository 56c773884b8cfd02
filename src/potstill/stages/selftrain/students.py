"""Who learns: every model of a self-training is one call of the distillation stage on a world of its own.

A world is a choice of rows with repetitions. Those trained without the pool get their labelled images repeated until
their steps are as many as those of the others, each repetition in views of its own, so that budgets are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.data.manifest import Manifest
from potstill.data.pixels import Pixels
from potstill.models import zoo
from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.train import Teaching, Trained
from potstill.stages.recipe import ObjectiveConfig, Recipe, StudentConfig
from potstill.stages.selftrain.fixmatch import ConsistencyTeacher
from potstill.stages.selftrain.pseudo_labels import Targets
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.teacher.prepared import Taught
from potstill.teachers.prediction_store import Store

VIEWS = 1_000_000_000  # every pass over an image is another view of it
STRENGTHS = ((100_000, 0), (1_000_000, 3), (10_000_000, 6))  # parameters up to which RandAugment has this magnitude
STRONGEST = 9
LARGE = 1_000_000  # parameters from which on dropout and stochastic depth are noise and not harm
CLEAN_RATE = 0.1  # of the learning rate, in the last steps without noise
EVALUATIONS = 10  # of a training without the pool
LABELS = (Term(loss="cross_entropy"),)


class Picked(Pixels):
    """Rows of other pixels, in another order and with repetitions; nothing is copied."""

    def __init__(self, pixels: Pixels, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._rows), *self._pixels.shape[1:]

    def take(self, rows: np.ndarray) -> torch.Tensor:
        return self._pixels.take(self._rows[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on: row i is row `base[i]` of all images; `epochs` makes the steps that were asked for."""

    data: Data
    base: np.ndarray
    epochs: int


class PoolTeacher(Teaching):
    """What was said of the images, as the distillation stage's teacher. validation: its logits there, [N, K]."""

    validation: np.ndarray = np.zeros((0, 0), np.float32)

    def __init__(self, targets: Targets, identity: str, validation: np.ndarray, data: Data) -> None:
        size, channels = data.crop, data.channels
        blank = Card("labels of a pool", data.manifest.classes, channels, size, (0.0,) * channels, (1.0,) * channels,
                     data.resize, size)  # fmt: skip
        self.taught = Taught(None, blank, identity, "Looked up what the teachers said", {})
        self.validation, self._targets = validation, targets

    def function(self, taps: tuple[Tap, ...] = ()) -> Targets:
        """Return the answers; there are no features of a network that is not there."""
        return self._targets


def training_set(data: Data, train: np.ndarray, steps: int, batch: int, *, evaluations: int = 0) -> TrainingSet:
    """Return a world of these rows for about `steps` steps, at least one pass over the rows.

    evaluations: repeat the rows so that there are that many epochs of exactly `steps` steps in all.
    """
    if evaluations:
        epochs = max(1, min(evaluations, steps // 20))
        train = np.resize(train, max(round(steps / epochs) * batch, batch))
    else:
        epochs = max(1, round(steps / max(len(train) // min(batch, len(train)), 1)))
    base = np.concatenate([train, data.manifest.rows("validation", labelled=True)])
    split = np.zeros(len(base), np.uint8)
    split[len(train) :] = 1
    chosen = _without_groups(data.manifest.select(base)).with_split(split)
    return TrainingSet(replace(data, manifest=chosen, pixels=Picked(data.pixels, base)), base, epochs)


def _without_groups(manifest: Manifest) -> Manifest:
    return replace(manifest, group=None)


def steps_of(made: TrainingSet, batch: int) -> int:
    """Return the steps that a training on a world takes."""
    count = len(made.data.manifest.rows("train"))
    return made.epochs * (count // min(batch, count))


TrainingSignal = Callable[[TrainingSet], tuple[tuple[Term, ...], Teaching | None]]


def from_labels(made: TrainingSet) -> tuple[tuple[Term, ...], Teaching | None]:
    """The lesson of a student that has the labels and nothing else."""
    return LABELS, None


def from_teachers(
    config: SelftrainConfig, store: Store, first: Store | None, validation: np.ndarray, identity: str,
    column: str = "logits",
) -> TrainingSignal:  # fmt: skip
    """Return the lesson of a student of what is in a store (`Targets`).

    validation: the teachers' logits there, [N, K]; identity: names what the stores hold.
    """

    def lesson(made: TrainingSet) -> tuple[tuple[Term, ...], Teaching | None]:
        manifest = made.data.manifest
        hard = config.labelling == "hard"
        targets = Targets(store, first, made.base, manifest.label, len(manifest.classes), hard, column)
        soft = Term(loss="soft_cross_entropy", weight=config.unlabelled_weight)
        return (*LABELS, soft), PoolTeacher(targets, identity, validation, made.data)

    return lesson


def from_itself(config: SelftrainConfig) -> TrainingSignal:
    """Return the lesson of a student that labels the pool itself."""

    def lesson(made: TrainingSet) -> tuple[tuple[Term, ...], Teaching | None]:
        itself = ConsistencyTeacher(
            made.data, method=config.method, threshold=config.threshold, weight=config.unlabelled_weight
        )  # fmt: skip
        return LABELS, itself

    return lesson


def learn(
    config: SelftrainConfig,
    student: StudentConfig,
    made: TrainingSet,
    lesson: TrainingSignal,
    folder: Path,
    seed: int,
    *,
    noise: Any,
) -> Trained:
    """Return a trained model in `folder`/seed-N, or of its clean last steps in `folder`-clean/seed-N."""
    recipe = recipe_of(config, student, made.data, epochs=made.epochs, noise=noise)
    trained = _one(recipe, made, lesson, folder, seed)
    if not config.clean or noise == "none":
        return trained
    few = _last(config, made)
    last = recipe_of(config, student, few.data, epochs=few.epochs, noise="none")
    weights = str(trained.folder / zoo.WEIGHTS)
    slow = last.train.model_copy(update={"lr": last.train.lr * CLEAN_RATE, "warmup": 0.0})
    last = last.model_copy(update={"student": last.student.model_copy(update={"weights": weights}), "train": slow})
    after = _one(last, few, lesson, folder.with_name(f"{folder.name}-clean"), seed)
    seconds = trained.record["seconds"] + after.record["seconds"]
    return replace(after, record={**after.record, "seconds": seconds})


def _one(recipe: Recipe, made: TrainingSet, lesson: TrainingSignal, folder: Path, seed: int) -> Trained:
    terms, teaching = lesson(made)
    return train.train_one(recipe, made.data, terms, teaching, folder, seed)


def _last(config: SelftrainConfig, made: TrainingSet) -> TrainingSet:
    """Return a world for the clean steps at the end: evenly spaced rows of each kind."""
    manifest, batch = made.data.manifest, config.train.batch_size
    train = manifest.rows("train")
    steps = max(1, round(config.clean * steps_of(made, batch)))
    wanted = min(steps * batch, len(train))
    even = np.unique(np.linspace(0, len(train) - 1, wanted).astype(int))
    labelled = manifest.rows("train", labelled=True)[: max(1, wanted // 2)]
    chosen = np.union1d(train[even], labelled)
    validation = manifest.rows("validation")
    rows = np.concatenate([chosen, validation])
    data = replace(made.data, manifest=manifest.select(rows), pixels=Picked(made.data.pixels, rows))
    return TrainingSet(data, made.base[rows], max(1, round(steps / max(len(chosen) // min(batch, len(chosen)), 1))))


def recipe_of(config: SelftrainConfig, student: StudentConfig, data: Data, *, epochs: int, noise: Any) -> Recipe:
    """Return the recipe of one training of `student` with the noise that suits its size."""
    augment, options = noise_of(student, data, noise)
    return Recipe(
        name=config.name,
        data=config.data,
        student=student.model_copy(update={"options": {**options, **student.options}}),
        objective=ObjectiveConfig(),
        train=config.train.model_copy(update={"epochs": epochs}),
        augment=augment,
        views=VIEWS,
        seeds=config.seeds,
        seed=config.seed,
    )


def noise_of(student: StudentConfig, data: Data, noise: Any) -> tuple[str | list[Any], dict[str, Any]]:
    """Return (augmentation, options of the architecture) of a student: weak for small ones, strong for large ones.

    Noise that a student is too small for costs it more than it teaches.
    """
    if noise == "none":
        return "none", _without_dropout(student)
    if noise != "auto":
        return noise, {}
    parameters = _parameters(student, data)
    magnitude = next((strength for limit, strength in STRENGTHS if parameters <= limit), STRONGEST)
    augment: list[Any] = ["auto", {"randaugment": {"magnitude": magnitude}}] if magnitude else ["auto"]
    return augment, _stochastic(student) if parameters >= LARGE else {}


def _parameters(student: StudentConfig, data: Data) -> int:
    made: Classifier = data.model(student.model, options=student.options)
    return zoo.count_parameters(made)


def _without_dropout(student: StudentConfig) -> dict[str, Any]:
    """Return the options that switch dropout off, where a built-in network has it on by itself."""
    return {"dropout": 0.0} if student.model == "builtin:cnn" else {}


def _stochastic(student: StudentConfig) -> dict[str, Any]:
    """Return dropout and stochastic depth for the networks of timm that have both."""
    if ":" in student.model or Path(student.model).exists():
        return {}
    import inspect

    import timm

    wanted = {"drop_rate": 0.2, "drop_path_rate": 0.1}
    network = type(timm.create_model(student.model, pretrained=False))
    return wanted if set(wanted) <= set(inspect.signature(network).parameters) else {}

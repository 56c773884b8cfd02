"""Who learns: every model of a self-training is one call of the distillation stage on a training set of its own.

A training set is a choice of rows with repetitions. Those trained without the pool get their labelled images repeated
until their steps are as many as those of the others, each repetition in views of its own, so that budgets are equal.
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
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.distill.train import StudentSetup, train_one
from potstill.stages.recipe import StudentConfig, Views
from potstill.stages.selftrain.fixmatch import ConsistencyTeacher
from potstill.stages.selftrain.pseudo_labels import Targets
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.teacher.prepared import TeacherSource, plain_card
from potstill.stages.training import Trained
from potstill.teachers.prediction_store import Store

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


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolTeacher(TeacherSource):
    """The stored labels of a pool, as a teacher."""

    targets: Targets

    def function(self, taps: tuple[Tap, ...] = ()) -> Targets:
        """Return the labels as `Batch -> Outputs`; there are no features."""
        return self.targets

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray:
        """Return what was stored for rows of the training set, whatever label they have: [N, K]."""
        return self.targets.stored_logits(rows)


def training_set(data: Data, train: np.ndarray, steps: int, batch: int, *, evaluations: int = 0) -> TrainingSet:
    """Return a training set of these rows for about `steps` steps, at least one pass over the rows.

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
    """Return the steps that a training on it takes."""
    count = len(made.data.manifest.rows("train"))
    return made.epochs * (count // min(batch, count))


TrainingSignal = Callable[[TrainingSet], tuple[tuple[Term, ...], TeacherSource | None]]


def from_labels(made: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
    """The training signal of a student that has the labels and nothing else."""
    return LABELS, None


def from_teachers(
    config: SelftrainConfig, store: Store, first: Store | None, identity: str, column: str = "logits"
) -> TrainingSignal:
    """Return the training signal of what is in a store (`Targets`). identity: a digest of what the stores hold."""

    def signal(made: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
        manifest = made.data.manifest
        hard = config.labelling == "hard"
        targets = Targets(store, first, made.base, manifest.label, len(manifest.classes), hard, column)
        soft = Term(loss="soft_cross_entropy", weight=config.unlabelled_weight)
        card = plain_card("labels of a pool", made.data)
        return (*LABELS, soft), PoolTeacher(targets=targets, card=card, identity=identity)

    return signal


def from_itself(config: SelftrainConfig) -> TrainingSignal:
    """Return the training signal of a student that labels the pool itself."""

    def signal(made: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
        return LABELS, ConsistencyTeacher(
            card=plain_card(config.method, made.data),
            identity=f"{config.method}, threshold {config.threshold}, weight {config.unlabelled_weight}",
            method=config.method,
            threshold=config.threshold,
            weight=config.unlabelled_weight,
        )

    return signal


def learn(
    config: SelftrainConfig,
    student: StudentConfig,
    made: TrainingSet,
    signal: TrainingSignal,
    folder: Path,
    seed: int,
    *,
    noise: Any,
) -> Trained:
    """Return a trained model in `folder`/seed-N, or of its clean last steps in `folder`-clean/seed-N."""
    trained = _one(setup_of(config, student, made, noise=noise), made, signal, folder, seed)
    if not config.clean or noise == "none":
        return trained
    few = _last(config, made)
    last = setup_of(config, student, few, noise="none")
    slow = last.train.model_copy(update={"lr": last.train.lr * CLEAN_RATE, "warmup": 0.0})
    start = last.student.model_copy(update={"weights": str(trained.folder / zoo.WEIGHTS)})
    clean = replace(last, student=start, train=slow)
    after = _one(clean, few, signal, folder.with_name(f"{folder.name}-clean"), seed)
    seconds = trained.record["seconds"] + after.record["seconds"]
    return replace(after, record={**after.record, "seconds": seconds})


def _one(setup: StudentSetup, made: TrainingSet, signal: TrainingSignal, folder: Path, seed: int) -> Trained:
    terms, teacher = signal(made)
    return train_one(setup, made.data, terms, teacher, folder, seed)


def _last(config: SelftrainConfig, made: TrainingSet) -> TrainingSet:
    """Return a training set for the clean steps at the end: evenly spaced rows of each kind."""
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


def setup_of(config: SelftrainConfig, student: StudentConfig, made: TrainingSet, *, noise: Any) -> StudentSetup:
    """Return how `student` is trained on a training set, with the noise that suits its size; no view is seen twice."""
    augment, options = noise_of(student, made.data, noise)
    return StudentSetup(
        student.model_copy(update={"options": {**options, **student.options}}),
        config.train.model_copy(update={"epochs": made.epochs}),
        Views(augment, seed=config.seed, fresh=True),
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

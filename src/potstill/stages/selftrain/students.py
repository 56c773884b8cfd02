"""Training of the models of a self-training: each is one call of `train_one` on its own training set.

A training set is a selection of rows with repetitions. Without the pool, the labelled images are repeated until there
are as many steps as with it, each repetition in its own views, so that budgets are equal.
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
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.hooks import Tap
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.distill.train import StudentSetup, new_student, planned, train_one
from potstill.stages.recipe import StudentConfig, Views
from potstill.stages.selftrain.fixmatch import ConsistencyTeacher
from potstill.stages.selftrain.pseudo_labels import Targets
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.side_by_side import Part
from potstill.stages.teacher.prepared import TeacherSource, plain_card
from potstill.stages.training import Trained
from potstill.teachers.prediction_store import Store

MAGNITUDES = ((100_000, 0), (1_000_000, 3), (10_000_000, 6))  # up to so many parameters: magnitude of RandAugment
LARGEST_MAGNITUDE = 9
LARGE = 1_000_000  # parameters; smaller networks lose accuracy with dropout and stochastic depth
CLEAN_RATE = 0.1  # times the learning rate, in the last steps without noise
EVALUATIONS = 10  # epochs of a training without the pool
LABELS = (Term(loss="cross_entropy"),)


class Picked(Pixels):
    """Rows of other pixels, in any order and with repetitions; nothing is copied."""

    def __init__(self, pixels: Pixels, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._rows), *self._pixels.shape[1:]

    def take(self, rows: np.ndarray) -> torch.Tensor:
        return self._pixels.take(self._rows[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on: row i is row `base[i]` of all images; `epochs` results in the requested steps."""

    data: Data
    base: np.ndarray
    epochs: int


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolTeacher(TeacherSource):
    """The stored pseudo-labels of the pool, as a teacher."""

    targets: Targets

    def function(self, taps: tuple[Tap, ...] = ()) -> Targets:
        """Return the labels as `Batch -> Outputs`; there are no features."""
        return self.targets

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray:
        """Return the stored logits for rows of the training set, labelled or not: [N, K]."""
        return self.targets.stored_logits(rows)


def training_set(data: Data, train: np.ndarray, steps: int, batch: int, *, evaluations: int = 0) -> TrainingSet:
    """Return a training set of these rows for about `steps` steps, at least one pass over the rows.

    evaluations: if positive, the rows are repeated, all of them as often, to fill at most that many epochs of `steps`
    steps in total. Rows of which there are more than in all steps are left out evenly, since they are sorted by class.
    """
    if evaluations:
        epochs = max(1, min(evaluations, steps // 20, steps * batch // len(train)))
        count = max(round(steps / epochs) * batch, batch)
        train = train[np.arange(count) * len(train) // count]
    else:
        epochs = max(1, round(steps / max(len(train) // min(batch, len(train)), 1)))
    base = np.concatenate([train, data.manifest.rows("validation", labelled=True)])
    split = np.zeros(len(base), np.uint8)
    split[len(train) :] = 1
    chosen = _without_groups(data.manifest.select(base)).with_split(split)
    return TrainingSet(replace(data, manifest=chosen, pixels=Picked(data.pixels, base)), base, epochs)


def _without_groups(manifest: Manifest) -> Manifest:
    return replace(manifest, group=None)


def steps_of(images: TrainingSet, batch: int) -> int:
    """Return the number of training steps on a training set."""
    count = len(images.data.manifest.rows("train"))
    return images.epochs * (count // min(batch, count))


TrainingSignal = Callable[[TrainingSet], tuple[tuple[Term, ...], TeacherSource | None]]


def from_labels(images: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
    """Return the training signal of the labels alone."""
    return LABELS, None


def from_teachers(
    config: SelftrainConfig, store: Store, first: Store | None, identity: str, column: str = "logits"
) -> TrainingSignal:
    """Return the training signal of stored pseudo-labels (`Targets`). identity: a digest of the contents of stores."""

    def signal(images: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
        manifest = images.data.manifest
        hard = config.labelling == "hard"
        targets = Targets(store, first, images.base, manifest.label, len(manifest.classes), hard, column)
        soft = Term(loss="soft_cross_entropy", weight=config.unlabelled_weight)
        card = plain_card("pseudo-labels", images.data)
        return (*LABELS, soft), PoolTeacher(targets=targets, card=card, identity=identity)

    return signal


def from_itself(config: SelftrainConfig) -> TrainingSignal:
    """Return the training signal of a student that labels the pool itself (FixMatch or FreeMatch)."""

    def signal(images: TrainingSet) -> tuple[tuple[Term, ...], TeacherSource | None]:
        return LABELS, ConsistencyTeacher(
            card=plain_card(config.method, images.data),
            identity=f"{config.method}, threshold {config.threshold}, weight {config.unlabelled_weight}",
            method=config.method,
            threshold=config.threshold,
            weight=config.unlabelled_weight,
        )

    return signal


def train(
    config: SelftrainConfig,
    student: StudentConfig,
    images: TrainingSet,
    signal: TrainingSignal,
    folder: Path,
    seed: int,
    *,
    noise: Any,
) -> Trained:
    """Return a trained model in `folder`/seed-N; after last steps without noise, in `folder`-clean/seed-N."""
    trained = _one(setup_of(config, student, images, noise=noise), images, signal, folder, seed)
    if not config.clean or noise == "none":
        return trained
    few = _last(config, images)
    last = setup_of(config, student, few, noise="none")
    slow = last.train.model_copy(update={"lr": last.train.lr * CLEAN_RATE, "warmup": 0.0})
    start = last.student.model_copy(update=_from(last.student, trained.folder))
    clean = replace(last, student=start, train=slow)
    after = _one(clean, few, signal, _clean(folder), seed)
    seconds = trained.record["seconds"] + after.record["seconds"]
    return replace(after, record={**after.record, "seconds": seconds})


def part(
    config: SelftrainConfig,
    student: StudentConfig,
    images: TrainingSet,
    signal: TrainingSignal,
    folder: Path,
    seed: int,
    *,
    noise: Any,
) -> Part[Trained]:
    """Return `train` as one of several trainings side by side."""
    last = folder if not config.clean or noise == "none" else _clean(folder)
    return Part(
        last / f"seed-{seed}",
        lambda: train(config, student, images, signal, folder, seed, noise=noise),
        lambda: planned(setup_of(config, student, images, noise=noise), images.data, seed),
    )


def _clean(folder: Path) -> Path:
    """Return the folder of the last steps without noise."""
    return folder.with_name(f"{folder.name}-clean")


def _one(setup: StudentSetup, images: TrainingSet, signal: TrainingSignal, folder: Path, seed: int) -> Trained:
    terms, teacher = signal(images)
    return train_one(setup, images.data, terms, teacher, folder, seed)


def _from(student: StudentConfig, folder: Path) -> dict[str, Any]:
    """Return the settings of a student that starts with what was trained in a folder."""
    if find(student.model) is not None:  # the folder of a model has its own weights
        return {"model": str(folder)}
    return {"weights": str(folder / zoo.WEIGHTS)}


def _last(config: SelftrainConfig, images: TrainingSet) -> TrainingSet:
    """Return a training set for the last steps without noise: evenly spaced rows, labelled and not."""
    manifest, batch = images.data.manifest, config.batch_size
    rows = manifest.rows("train")
    steps = max(1, round(config.clean * steps_of(images, batch)))
    wanted = min(steps * batch, len(rows))
    even = np.unique(np.linspace(0, len(rows) - 1, wanted).astype(int))
    own = manifest.rows("train", labelled=True)
    labelled = np.linspace(0, len(own) - 1, min(len(own), max(1, wanted // 2))).astype(int)
    chosen = np.union1d(rows[even], own[labelled])
    both = np.concatenate([chosen, manifest.rows("validation")])
    data = replace(images.data, manifest=manifest.select(both), pixels=Picked(images.data.pixels, both))
    return TrainingSet(data, images.base[both], max(1, round(steps / max(len(chosen) // min(batch, len(chosen)), 1))))


def setup_of(config: SelftrainConfig, student: StudentConfig, images: TrainingSet, *, noise: Any) -> StudentSetup:
    """Return how `student` is trained on a training set, with noise by its size; each view is used once."""
    augment, options = noise_of(student, images.data, noise)
    return StudentSetup(
        student.model_copy(update={"options": {**options, **student.options}}),
        config.train.model_copy(update={"epochs": images.epochs}),
        Views(augment, seed=config.seed, fresh=True),
    )


def noise_of(student: StudentConfig, data: Data, noise: Any) -> tuple[str | list[Any], dict[str, Any]]:
    """Return (augmentation, options of the architecture) of a student: the larger it is, the stronger the noise.

    Strong noise reduces the accuracy of small networks.
    """
    if noise == "none":
        return "none", _without_dropout(student)
    if noise != "auto":
        return noise, {}
    parameters = _parameters(student, data)
    magnitude = next((value for limit, value in MAGNITUDES if parameters <= limit), LARGEST_MAGNITUDE)
    augment: list[Any] = ["auto", {"randaugment": {"magnitude": magnitude}}] if magnitude else ["auto"]
    return augment, _stochastic(student) if parameters >= LARGE else {}


def _parameters(student: StudentConfig, data: Data) -> int:
    return zoo.count_parameters(new_student(student, data, 0))


def _without_dropout(student: StudentConfig) -> dict[str, Any]:
    """Return the options that disable dropout in a built-in network that has it by default."""
    return {"dropout": 0.0} if student.model == "builtin:cnn" else {}


def _stochastic(student: StudentConfig) -> dict[str, Any]:
    """Return dropout and stochastic depth for timm's networks that have both."""
    if ":" in student.model or Path(student.model).exists():
        return {}
    import inspect

    import timm

    options = {"drop_rate": 0.2, "drop_path_rate": 0.1}
    network = type(timm.create_model(student.model, pretrained=False))
    return options if set(options) <= set(inspect.signature(network).parameters) else {}

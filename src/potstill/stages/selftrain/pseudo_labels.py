"""Pseudo-labels of every image: calibrated probabilities, disagreement of the teachers, out-of-distribution score.

No model labels an image it was trained on: the models of a teacher are trained on folds, a labelled image is evaluated
by the model that was not trained on it, and the prediction is averaged with the known label. The temperature is fitted
to the same held-out predictions. Images are not augmented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from potstill import distributed, progress
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.evaluation import metrics
from potstill.models.card import Card
from potstill.models.hooks import as_vector
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, Outputs
from potstill.stages.dataset import Data
from potstill.stages.selftrain.probed import Probed
from potstill.teachers.base import log_probabilities, mixed
from potstill.teachers.ensemble import EnsembleModel
from potstill.teachers.prediction_store import Store
from potstill.torch_context import threads
from potstill.training import devices, predict
from potstill.training.predict import Model

NEIGHBOURS = 5
REFERENCES = 2000  # labelled images to which distances are computed
BATCH = 128  # images whose activations stay in the cache of a CPU
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.25, 20.0
OWN_SHARE = 0.5  # weight of the known label in the soft target of a labelled image
HARD = 0.999  # probability of the class of a hard label


@dataclass
class CalibratedTeacher:
    """A model that labels images. seen: int64, the rows it was trained on, which it must not label."""

    model: Model
    identity: str
    seen: np.ndarray
    temperature: float = 1.0

    @property
    def card(self) -> Card:
        """The card of the model: every kind of model that becomes a teacher has one."""
        return cast(Any, self.model).card


def calibrate(teachers: Sequence[CalibratedTeacher], data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit one temperature for all teachers to the labelled `rows` that each was not trained on, and set it.

    It is a part of the identity of what they label, so it is computed by one thread in every process: the last digits
    of logits depend on the number of threads. Returns (logits, labels) of all pairs of teacher and unseen row, which
    estimate the quality of pseudo-labels.
    """
    parts, labels = [], []
    for teacher in teachers:
        unseen = np.setdiff1d(rows, teacher.seen)
        if len(unseen):
            with threads(1):
                parts.append(_logits(teacher, data, unseen))
            labels.append(data.manifest.label[unseen])
    logits, label = np.concatenate(parts), np.concatenate(labels)
    temperature = metrics.fit_temperature(logits, label, low=LOWEST_TEMPERATURE, high=HIGHEST_TEMPERATURE)
    for teacher in teachers:
        teacher.temperature = temperature
    return logits, label


def _logits(teacher: CalibratedTeacher, data: Data, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([outputs.logits.cpu().numpy() for (outputs,) in _outputs([teacher.model], data, rows)])


def _outputs(models: Sequence[Model], data: Data, rows: np.ndarray) -> Iterator[list[Outputs]]:
    """Yield the outputs of all models for each batch: models with a shared backbone receive the same tensor."""
    networks = [model for model in models if isinstance(model, Classifier)]
    loader = data.loader(device=devices.device() if len(networks) == len(models) else "cpu")
    for network in networks:
        network.to(loader.device)
    fast = [_fast(model) for model in models]
    for batch in predict.clean_batches(loader, rows, BATCH):
        yield [next(predict.predict(model, [batch]))[1] for model in fast]


def _fast(model: Model) -> Model:
    """Return the model with channels_last inputs, the fastest memory format of convolutions."""
    if not isinstance(model, Classifier):
        return model
    model.eval()
    return lambda image: model(image.contiguous(memory_format=torch.channels_last))


def has_features(teachers: Sequence[CalibratedTeacher]) -> bool:
    """Return whether all teachers have features; exported files have none."""
    return all(isinstance(teacher.model, Classifier | Probed) for teacher in teachers)


def ensemble_of(teachers: Sequence[CalibratedTeacher]) -> Model:
    """Return the teachers as one model, whose logits are the log of the mean of their calibrated probabilities."""
    models = [_calibrated(teacher) for teacher in teachers]
    return EnsembleModel(models, [1.0] * len(models), "probabilities", teachers[0].card)


def _calibrated(teacher: CalibratedTeacher) -> Model:
    def forward(image: torch.Tensor) -> Outputs:
        if isinstance(teacher.model, Classifier):
            image = image.to(teacher.model.eval().mean.device)
        return Outputs(teacher.model(image).logits.float() / teacher.temperature)

    return forward


@dataclass(frozen=True)
class Fold:
    """A fold of the labels: the held-out rows, and the indices of the teachers that were not trained on them."""

    held: np.ndarray
    teachers: tuple[int, ...]


def folds_of(teachers: Sequence[CalibratedTeacher], labelled: np.ndarray) -> list[Fold]:
    """Return the folds of the teachers that were trained here; the training images of others are unknown."""
    folds: dict[bytes, Fold] = {}
    for number, teacher in enumerate(teachers):
        if len(teacher.seen):
            held = np.setdiff1d(labelled, teacher.seen)
            before = folds.get(held.tobytes())
            folds[held.tobytes()] = Fold(held, (*(before.teachers if before else ()), number))
    return [fold for fold in folds.values() if len(fold.held)]


def label(
    teachers: Sequence[CalibratedTeacher],
    data: Data,
    rows: np.ndarray,
    folder: Path,
    *,
    with_distance: bool,
    title: str,
    folds: Sequence[Fold] = (),
) -> Store:
    """Return the store of the teachers' predictions for `rows`, computing the parts that are missing.

    Columns: logits, float16 [K], the log of the mean calibrated probabilities; disagreement, float16, the mean total
    variation distance of the teachers from their mean, 0..1; distance, float16, the out-of-distribution score: the
    distance to the nearest labelled images as a multiple of that of held-out images (0 unless `with_distance`);
    fold-0 and so on, float16 [K], as logits but of the teachers of one fold.
    """
    source = {
        "teachers": [[teacher.identity, teacher.temperature] for teacher in teachers],
        "images": data.manifest.select(rows).with_labels(np.full(len(rows), UNLABELLED)).fingerprint,
        "with_distance": with_distance,
        "folds": [fold.teachers for fold in folds],
    }
    store = Store(folder, rows, 1, source)
    if distributed.broadcast(store.complete):
        return store
    distances = [_Distance(teacher, data) if with_distance else None for teacher in teachers]
    missing = store.missing()[distributed.rank() :: distributed.world()]
    distributed.wait()  # all processes have listed what is missing
    with progress.task(title, len(missing)) as task:
        for view, part in missing:
            store.write(view, part, _part(teachers, distances, data, store.part_rows(part), folds))
            task.advance()
    distributed.wait()
    if distributed.is_main():
        store.close()
    distributed.wait()
    return store


def _part(
    teachers: Sequence[CalibratedTeacher],
    distances: Sequence[_Distance | None],
    data: Data,
    rows: np.ndarray,
    folds: Sequence[Fold],
) -> dict[str, np.ndarray]:
    probability = np.zeros((len(teachers), len(rows), len(data.manifest.classes)), np.float32)
    far = np.zeros((len(teachers), len(rows)), np.float32)
    unseen = np.stack([~np.isin(rows, teacher.seen) for teacher in teachers])
    pairs = zip(teachers, distances, strict=True)
    models = [distance.model if distance else teacher.model for teacher, distance in pairs]
    start = 0
    for each in _outputs(models, data, rows):
        here = slice(start, start := start + len(each[0].logits))
        for k, (teacher, distance, outputs) in enumerate(zip(teachers, distances, each, strict=True)):
            probability[k, here] = F.softmax(outputs.logits / teacher.temperature, 1).cpu().numpy()
            if distance:
                far[k, here] = distance.of(outputs)
    assert unseen.any(0).all(), "every image is unseen by at least one teacher"
    weight = unseen / unseen.sum(0)
    mean = np.einsum("tn,tnk->nk", weight, probability)
    disagreement = 0.5 * np.abs(probability - mean).sum(2)
    return {
        **{fold_column(number): _stored(probability[list(fold.teachers)].mean(0)) for number, fold in enumerate(folds)},
        "logits": _stored(mean),
        "disagreement": (weight * disagreement).sum(0).astype(np.float16),
        "distance": np.minimum((weight * far).sum(0), 6e4).astype(np.float16),
    }


def fold_column(number: int) -> str:
    """Return the column of a store with the predictions of one fold's teachers."""
    return f"fold-{number}"


def _stored(probability: np.ndarray) -> np.ndarray:
    return log_probabilities(torch.from_numpy(probability)).half().numpy()


class _Distance:
    """The cosine distance to the labelled images a teacher was trained on, relative to that of held-out images."""

    def __init__(self, teacher: CalibratedTeacher, data: Data) -> None:
        assert has_features([teacher]), "an exported file has no features"
        self.model = _with_features(teacher.model)
        manifest = data.manifest
        trained_on = teacher.seen if len(teacher.seen) else manifest.rows("train", labelled=True)
        seen = trained_on[:: max(1, len(trained_on) // REFERENCES)]
        self._known = torch.cat([_direction(outputs) for (outputs,) in _outputs([self.model], data, seen)])
        self._scale = 1.0
        others = np.concatenate([manifest.rows(split, labelled=True) for split in ("train", "validation")])
        held = np.setdiff1d(others, trained_on)
        distances = [self.of(outputs) for (outputs,) in _outputs([self.model], data, held)]
        self._scale = max(float(np.quantile(np.concatenate(distances), 0.99)), 1e-6) if distances else 1.0

    def of(self, outputs: Outputs) -> np.ndarray:
        """Return the distances, float32 [B]."""
        near = (_direction(outputs) @ self._known.T).topk(min(NEIGHBOURS, len(self._known)), 1).values[:, -1]
        return ((1 - near) / self._scale).cpu().numpy()


def _with_features(model: Model) -> Model:
    return model.replace(taps=resolve(model, ["pooled"])).eval() if isinstance(model, Classifier) else model


def _direction(outputs: Outputs) -> torch.Tensor:
    return F.normalize(as_vector(outputs.features["pooled"]).float(), dim=1)


def probabilities(store: Store, rows: np.ndarray, column: str = "logits") -> np.ndarray:
    """Return the stored probabilities of rows, float32 [N, K]."""
    return np.exp(store.read(rows, np.zeros_like(rows))[column].astype(np.float32))


@dataclass(frozen=True)
class Targets:
    """Stored labels as a function `Batch -> Outputs`: row i of a training set is row `base[i]` of the stores.

    own: int64, the known label of each row, else UNLABELLED. The target of a labelled row is the average, weighted by
    OWN_SHARE, of its label and its probabilities in `first`, the store of teachers that were not trained on it; without
    `first` it is the label. column: of `store`, the targets of the other rows.
    """

    store: Store
    first: Store | None
    base: np.ndarray
    own: np.ndarray
    classes: int
    hard: bool = False
    column: str = "logits"

    def __call__(self, batch: Batch) -> Outputs:
        index = batch.index.cpu().numpy()
        base, own = self.base[index], torch.from_numpy(self.own[index])
        known = (own != UNLABELLED).numpy()
        probability = torch.empty(len(index), self.classes)
        probability[known] = F.one_hot(own[known], self.classes).float()
        for store, column, chosen in ((self.first, "logits", known), (self.store, self.column, ~known)):
            if store is not None and chosen.any():
                probability[chosen] = torch.from_numpy(probabilities(store, base[chosen], column))
        if self.hard:
            probability = _one_hot(probability.argmax(1), probability.shape[1], HARD)
        probability[known] = (1 - OWN_SHARE) * probability[known] + OWN_SHARE * F.one_hot(
            own[known], probability.shape[1]
        )
        return mixed(Outputs(log_probabilities(probability).to(batch.image.device)), batch.mix)

    def stored_logits(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits in `store` for rows of the training set, float32 [N, K]."""
        return np.log(np.clip(probabilities(self.store, self.base[rows], self.column), 1e-30, 1))


def _one_hot(label: torch.Tensor, classes: int, confidence: float) -> torch.Tensor:
    return F.one_hot(label, classes) * confidence + (1 - confidence) / classes


def quality(logits: np.ndarray, label: np.ndarray, *, temperature: float, min_confidence: float) -> dict[str, Any]:
    """Return precision and coverage of labels of at least `min_confidence`, estimated on unseen labelled images.

    logits: [N, K], before the temperature. In percent, with Wilson's 95 % interval; precision is None if no prediction
    has that confidence.
    """
    from potstill.evaluation.statistics import proportion_interval

    probability = metrics.softmax(logits, temperature)
    confident = probability.max(1) >= min_confidence
    correct = probability.argmax(1) == label
    count, total = int(confident.sum()), len(label)

    def share(hits: int, of: int) -> dict[str, Any]:
        return {"percent": round(100 * hits / of, 2), "interval": [round(b, 2) for b in proportion_interval(hits, of)]}

    return {
        "predictions": total,
        "temperature": round(temperature, 4),
        "calibration_error": round(metrics.expected_calibration_error(logits, label, temperature=temperature), 2),
        "coverage": share(count, total),
        "precision": share(int((correct & confident).sum()), count) if count else None,
    }

"""What the teachers say of every image: calibrated probabilities, how far they disagree, how strange the image is.

Nobody labels what it was trained on: the models of a teacher are trained on folds, a labelled image is asked of the
one that has not seen it, and its answer is mixed with the label that is known. The temperature comes from the same
unseen answers. Images are shown clean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from potstill import progress
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.evaluation import metrics
from potstill.models.hooks import as_vector
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, Outputs
from potstill.stages.dataset import Data
from potstill.stages.selftrain.probed import Probed
from potstill.teachers.base import log_probabilities, mixed
from potstill.teachers.ensemble import EnsembleModel
from potstill.teachers.prediction_store import Store
from potstill.training import devices, predict
from potstill.training.predict import Model

NEIGHBOURS = 5
REFERENCES = 2000  # labelled images that distances are measured to
BATCH = 128  # images whose maps stay in the cache of a processor
COOLEST, HOTTEST = 0.25, 20.0
OWN_SHARE = 0.5  # of the known label, in what a labelled image is taught beside it
HARD = 0.999  # probability of the class of a hard label


@dataclass
class CalibratedTeacher:
    """One model that labels. seen: the rows it was trained on, whose answers it must not give (int64)."""

    model: Model
    identity: str
    seen: np.ndarray
    temperature: float = 1.0


def calibrate(voices: Sequence[CalibratedTeacher], data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set one temperature for all voices from labelled `rows`, each asked of voices that have not seen it.

    Returns (logits, labels) of the pairs of voice and unseen row, for what they tell of the labels to come.
    """
    parts, labels = [], []
    for voice in voices:
        unseen = np.setdiff1d(rows, voice.seen)
        if len(unseen):
            parts.append(_logits(voice, data, unseen))
            labels.append(data.manifest.label[unseen])
    logits, label = np.concatenate(parts), np.concatenate(labels)
    temperature = metrics.fit_temperature(logits, label, low=COOLEST, high=HOTTEST)
    for voice in voices:
        voice.temperature = temperature
    return logits, label


def _logits(voice: CalibratedTeacher, data: Data, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([outputs.logits.cpu().numpy() for (outputs,) in _outputs([voice.model], data, rows)])


def _outputs(models: Sequence[Model], data: Data, rows: np.ndarray) -> Iterator[list[Outputs]]:
    """Yield the outputs of each model for a batch, batch by batch: models that share a backbone see the same tensor."""
    networks = [model for model in models if isinstance(model, Classifier)]
    loader = data.loader(device=devices.device() if len(networks) == len(models) else "cpu")
    for network in networks:
        network.to(loader.device)
    fast = [_fast(model) for model in models]
    for batch in predict.clean_batches(loader, rows, BATCH):
        yield [next(predict.predict(model, [batch]))[1] for model in fast]


def _fast(model: Model) -> Model:
    """Return the model, given images in the memory layout that convolutions are fastest in."""
    if not isinstance(model, Classifier):
        return model
    model.eval()
    return lambda image: model(image.contiguous(memory_format=torch.channels_last))


def has_features(voices: Sequence[CalibratedTeacher]) -> bool:
    """Tell whether all voices can be looked into; an exported file cannot."""
    return all(isinstance(voice.model, Classifier | Probed) for voice in voices)


def together(voices: Sequence[CalibratedTeacher]) -> Model:
    """Return the voices as one model, whose logits are the log of the mean of their calibrated probabilities."""
    return EnsembleModel([_calibrated(v) for v in voices], [1.0] * len(voices), "probabilities", voices[0].model.card)


def _calibrated(voice: CalibratedTeacher) -> Model:
    def ask(image: torch.Tensor) -> Outputs:
        if isinstance(voice.model, Classifier):
            image = image.to(voice.model.eval().mean.device)
        return Outputs(voice.model(image).logits.float() / voice.temperature)

    return ask


@dataclass(frozen=True)
class Fold:
    """A fold of the labels: the rows that were held out, and the places of the voices that have not seen them."""

    held: np.ndarray
    voices: tuple[int, ...]


def folds_of(voices: Sequence[CalibratedTeacher], labelled: np.ndarray) -> list[Fold]:
    """Return the folds of the voices that were trained here; of others nobody knows what they have seen."""
    found: dict[bytes, Fold] = {}
    for number, voice in enumerate(voices):
        if len(voice.seen):
            held = np.setdiff1d(labelled, voice.seen)
            before = found.get(held.tobytes())
            found[held.tobytes()] = Fold(held, (*(before.voices if before else ()), number))
    return [fold for fold in found.values() if len(fold.held)]


def label(
    voices: Sequence[CalibratedTeacher], data: Data, rows: np.ndarray, folder: Path, *, strangeness: bool, title: str,
    folds: Sequence[Fold] = (),
) -> Store:  # fmt: skip
    """Return the store of what the voices say of `rows`, asking about the parts that an interrupted call has not.

    Columns: logits, float16 [K], the log of the mean calibrated probabilities; disagreement, float16, the mean total
    variation of the voices from their mean, 0..1; strange, float16, the distance to the nearest labelled images as a
    multiple of that of held-out images (0 where it is not asked for); fold-0 and so on, float16 [K], like logits but of
    the voices of a fold alone.
    """
    source = {
        "voices": [[voice.identity, voice.temperature] for voice in voices],
        "images": data.manifest.select(rows).with_labels(np.full(len(rows), UNLABELLED)).fingerprint,
        "strangeness": strangeness,
        "folds": [fold.voices for fold in folds],
    }
    store = Store(folder, rows, 1, source)
    if store.complete:
        return store
    far = [_Distance(voice, data) if strangeness else None for voice in voices]
    missing = store.missing()
    with progress.task(title, len(missing)) as task:
        for view, part in missing:
            store.write(view, part, _part(voices, far, data, store.part_rows(part), folds))
            task.advance()
    store.close()
    return store


def _part(
    voices: Sequence[CalibratedTeacher],
    far: Sequence[_Distance | None],
    data: Data,
    rows: np.ndarray,
    folds: Sequence[Fold],
) -> dict[str, np.ndarray]:
    votes = np.zeros((len(voices), len(rows), len(data.manifest.classes)), np.float32)
    strange = np.zeros((len(voices), len(rows)), np.float32)
    heard = np.stack([~np.isin(rows, voice.seen) for voice in voices])
    models = [distance.model if distance else voice.model for voice, distance in zip(voices, far, strict=True)]
    start = 0
    for each in _outputs(models, data, rows):
        here = slice(start, start := start + len(each[0].logits))
        for k, (voice, distance, outputs) in enumerate(zip(voices, far, each, strict=True)):
            votes[k, here] = F.softmax(outputs.logits / voice.temperature, 1).cpu().numpy()
            if distance:
                strange[k, here] = distance.of(outputs)
    assert heard.any(0).all(), "every image is unseen by somebody"
    weight = heard / heard.sum(0)
    mean = np.einsum("vn,vnk->nk", weight, votes)
    apart = 0.5 * np.abs(votes - mean).sum(2)
    return {
        **{fold_column(number): _stored(votes[list(fold.voices)].mean(0)) for number, fold in enumerate(folds)},
        "logits": _stored(mean),
        "disagreement": (weight * apart).sum(0).astype(np.float16),
        "strange": np.minimum((weight * strange).sum(0), 6e4).astype(np.float16),
    }


def fold_column(number: int) -> str:
    """Return the column of a store that has the answers of one fold's voices."""
    return f"fold-{number}"


def _stored(chance: np.ndarray) -> np.ndarray:
    return log_probabilities(torch.from_numpy(chance)).half().numpy()


class _Distance:
    """The cosine distance to the labelled images that a voice has seen, as a multiple of what is usual for others."""

    def __init__(self, voice: CalibratedTeacher, data: Data) -> None:
        assert has_features([voice]), "an exported file has no features"
        self.model = _looked_into(voice.model)
        manifest = data.manifest
        learned = voice.seen if len(voice.seen) else manifest.rows("train", labelled=True)
        seen = learned[:: max(1, len(learned) // REFERENCES)]
        self._known = torch.cat([_direction(outputs) for (outputs,) in _outputs([self.model], data, seen)])
        self._usual = 1.0
        others = np.concatenate([manifest.rows(split, labelled=True) for split in ("train", "validation")])
        held = np.setdiff1d(others, learned)
        found = [self.of(outputs) for (outputs,) in _outputs([self.model], data, held)]
        self._usual = max(float(np.quantile(np.concatenate(found), 0.99)), 1e-6) if found else 1.0

    def of(self, outputs: Outputs) -> np.ndarray:
        """Return float32 [B]."""
        near = (_direction(outputs) @ self._known.T).topk(min(NEIGHBOURS, len(self._known)), 1).values[:, -1]
        return ((1 - near) / self._usual).cpu().numpy()


def _looked_into(model: Model) -> Model:
    return model.replace(taps=resolve(model, ["pooled"])).eval() if isinstance(model, Classifier) else model


def _direction(outputs: Outputs) -> torch.Tensor:
    return F.normalize(as_vector(outputs.features["pooled"]).float(), dim=1)


def probabilities(store: Store, rows: np.ndarray, column: str = "logits") -> np.ndarray:
    """Return float32 [N, K] of what a store says of rows."""
    return np.exp(store.read(rows, np.zeros_like(rows))[column].astype(np.float32))


@dataclass(frozen=True)
class Targets:
    """Stored labels as a function `Batch -> Outputs`: row i of a training set is row `base[i]` of the stores.

    own: int64, for labelled images the label they have, else UNLABELLED. Their target comes from `first`, the
    store of the teachers that had not seen them, and is mixed with the label by OWN_SHARE; without `first` it is the
    label. column: of `store`, whose probabilities are the targets of the others.
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
        chance = torch.empty(len(index), self.classes)
        chance[known] = F.one_hot(own[known], self.classes).float()
        for store, column, chosen in ((self.first, "logits", known), (self.store, self.column, ~known)):
            if store is not None and chosen.any():
                chance[chosen] = torch.from_numpy(probabilities(store, base[chosen], column))
        if self.hard:
            chance = _one_hot(chance.argmax(1), chance.shape[1], HARD)
        chance[known] = (1 - OWN_SHARE) * chance[known] + OWN_SHARE * F.one_hot(own[known], chance.shape[1])
        return mixed(Outputs(log_probabilities(chance).to(batch.image.device)), batch.mix)

    def stored_logits(self, rows: np.ndarray) -> np.ndarray:
        """Return what `store` holds for rows of the training set, float32 [N, K]."""
        return np.log(np.clip(probabilities(self.store, self.base[rows], self.column), 1e-30, 1))


def _one_hot(label: torch.Tensor, classes: int, sure: float) -> torch.Tensor:
    return F.one_hot(label, classes) * sure + (1 - sure) / classes


def quality(logits: np.ndarray, label: np.ndarray, *, temperature: float, floor: float) -> dict[str, Any]:
    """Return precision and coverage of labels at a confidence floor, from answers about images that nobody had seen.

    Percent, with Wilson's 95 % interval; precision is None where no answer reaches the floor.
    """
    from potstill.evaluation.statistics import proportion_interval

    chance = metrics.softmax(logits, temperature)
    sure = chance.max(1) >= floor
    right = chance.argmax(1) == label
    count, total = int(sure.sum()), len(label)

    def share(hits: int, of: int) -> dict[str, Any]:
        return {"percent": round(100 * hits / of, 2), "interval": [round(b, 2) for b in proportion_interval(hits, of)]}

    return {
        "answers": total,
        "temperature": round(temperature, 4),
        "calibration_error": round(metrics.expected_calibration_error(logits, label, temperature=temperature), 2),
        "coverage": share(count, total),
        "precision": share(int((right & sure).sum()), count) if count else None,
    }

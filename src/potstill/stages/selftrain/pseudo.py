"""What the teachers say of every image: calibrated probabilities, how far they disagree, how strange the image is.

Nobody labels what it was trained on: the models of a teacher are trained on folds, a labelled image is asked of the
one that has not seen it, and its answer is mixed with the label that is known. The temperature comes from the same
unseen answers. Images are shown clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from potstill import engine, progress
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.engine import Model
from potstill.measure import metrics
from potstill.models.hooks import as_vector
from potstill.models.outputs import Classifier, Outputs
from potstill.models.taps import resolve
from potstill.stages.data import Data
from potstill.store import Store
from potstill.teachers import log_probabilities, mixed

NEIGHBOURS = 5
REFERENCES = 2000  # labelled images that distances are measured to
BATCH = 128  # images whose maps stay in the cache of a processor
COOLEST, HOTTEST = 0.25, 20.0
OWN_SHARE = 0.5  # of the known label, in what a labelled image is taught beside it
HARD = 0.999  # probability of the class of a hard label


@dataclass
class Voice:
    """One model that labels. seen: the rows it was trained on, whose answers it must not give (int64)."""

    model: Model
    identity: str
    seen: np.ndarray
    temperature: float = 1.0


def calibrate(voices: Sequence[Voice], data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set one temperature for all voices from labelled `rows`, each asked of voices that have not seen it.

    Returns (logits, labels) of the pairs of voice and unseen row, for what they tell of the labels to come.
    """
    said, truth = [], []
    for voice in voices:
        unseen = np.setdiff1d(rows, voice.seen)
        if len(unseen):
            said.append(_logits(voice, data, unseen))
            truth.append(data.manifest.label[unseen])
    logits, label = np.concatenate(said), np.concatenate(truth)
    temperature = metrics.fit_temperature(logits, label, low=COOLEST, high=HOTTEST)
    for voice in voices:
        voice.temperature = temperature
    return logits, label


def _logits(voice: Voice, data: Data, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([outputs.logits.cpu().numpy() for _, outputs in _asked(voice.model, data, rows)])


def _asked(model: Model, data: Data, rows: np.ndarray):
    loader = data.loader(device=engine.device() if isinstance(model, Classifier) else "cpu")
    if isinstance(model, Classifier):
        model.to(loader.device)
    return engine.predict(_fast(model), engine.clean_batches(loader, rows, BATCH))


def _fast(model: Model) -> Model:
    """Return the model, given images in the memory layout that convolutions are fastest in."""
    if not isinstance(model, Classifier):
        return model
    model.eval()
    return lambda image: model(image.contiguous(memory_format=torch.channels_last))


def label(
    voices: Sequence[Voice], data: Data, rows: np.ndarray, folder: Path, *, strangeness: bool, title: str
) -> Store:
    """Return the store of what the voices say of `rows`, asking about the parts that an interrupted call has not.

    Columns: logits, float16 [K], the log of the mean calibrated probabilities; disagreement, float16, the mean total
    variation of the voices from their mean, 0..1; strange, float16, the distance to the nearest labelled images as a
    multiple of that of held-out images (0 where it is not asked for).
    """
    source = {
        "voices": [[voice.identity, voice.temperature] for voice in voices],
        "images": data.manifest.select(rows).with_labels(np.full(len(rows), UNLABELLED)).fingerprint,
        "strangeness": strangeness,
    }
    store = Store(folder, rows, 1, source)
    if store.complete:
        return store
    far = [_Distance(voice, data) if strangeness else None for voice in voices]
    missing = store.missing()
    with progress.task(title, len(missing)) as task:
        for view, part in missing:
            store.write(view, part, _part(voices, far, data, store.part_rows(part)))
            task.advance()
    store.close()
    return store


def _part(
    voices: Sequence[Voice], far: Sequence[_Distance | None], data: Data, rows: np.ndarray
) -> dict[str, np.ndarray]:
    votes = np.zeros((len(voices), len(rows), len(data.manifest.classes)), np.float32)
    strange = np.zeros((len(voices), len(rows)), np.float32)
    heard = np.stack([~np.isin(rows, voice.seen) for voice in voices])
    for k, (voice, distance) in enumerate(zip(voices, far, strict=True)):
        model, start = distance.model if distance else voice.model, 0
        for batch, outputs in _asked(model, data, rows):
            here = slice(start, start + len(batch.index))
            votes[k, here] = F.softmax(outputs.logits / voice.temperature, 1).cpu().numpy()
            if distance:
                strange[k, here] = distance.of(outputs)
            start = here.stop
    assert heard.any(0).all(), "every image is unseen by somebody"
    weight = heard / heard.sum(0)
    mean = np.einsum("vn,vnk->nk", weight, votes)
    apart = 0.5 * np.abs(votes - mean).sum(2)
    return {
        "logits": log_probabilities(torch.from_numpy(mean)).half().numpy(),
        "disagreement": (weight * apart).sum(0).astype(np.float16),
        "strange": np.minimum((weight * strange).sum(0), 6e4).astype(np.float16),
    }


class _Distance:
    """The cosine distance to the labelled images that a voice has seen, as a multiple of what is usual for others."""

    def __init__(self, voice: Voice, data: Data) -> None:
        assert isinstance(voice.model, Classifier), "an exported file has no features"
        self.model = voice.model.replace(taps=resolve(voice.model, ["pooled"])).eval()
        manifest = data.manifest
        learned = voice.seen if len(voice.seen) else manifest.rows("train", labelled=True)
        seen = learned[:: max(1, len(learned) // REFERENCES)]
        self._known = torch.cat([_direction(outputs) for _, outputs in _asked(self.model, data, seen)])
        self._usual = 1.0
        others = np.concatenate([manifest.rows(split, labelled=True) for split in ("train", "validation")])
        held = np.setdiff1d(others, learned)
        found = [self.of(outputs) for _, outputs in _asked(self.model, data, held)]
        self._usual = max(float(np.quantile(np.concatenate(found), 0.99)), 1e-6) if found else 1.0

    def of(self, outputs: Outputs) -> np.ndarray:
        """Return float32 [B]."""
        near = (_direction(outputs) @ self._known.T).topk(min(NEIGHBOURS, len(self._known)), 1).values[:, -1]
        return ((1 - near) / self._usual).cpu().numpy()


def _direction(outputs: Outputs) -> torch.Tensor:
    return F.normalize(as_vector(outputs.features["pooled"]).float(), dim=1)


def probabilities(store: Store, rows: np.ndarray) -> np.ndarray:
    """Return float32 [N, K] of what a store says of rows."""
    return np.exp(store.read(rows, np.zeros_like(rows))["logits"].astype(np.float32))


@dataclass(frozen=True)
class Targets:
    """A teacher, `Batch -> Outputs`, that looks up what was said: row i of a world is row `base[i]` of the stores.

    own: int64, for labelled images the label they have, else UNLABELLED. What they are taught comes from `first`, the
    store of the teachers that had not seen them, and is mixed with the label by OWN_SHARE.
    """

    store: Store
    first: Store
    base: np.ndarray
    own: np.ndarray
    classes: int
    hard: bool = False

    def __call__(self, batch: Batch) -> Outputs:
        index = batch.index.cpu().numpy()
        base, own = self.base[index], torch.from_numpy(self.own[index])
        known = (own != UNLABELLED).numpy()
        said = torch.empty(len(index), self.classes)
        for store, chosen in ((self.first, known), (self.store, ~known)):
            if chosen.any():
                said[chosen] = torch.from_numpy(probabilities(store, base[chosen]))
        if self.hard:
            said = _one_hot(said.argmax(1), said.shape[1], HARD)
        said[known] = (1 - OWN_SHARE) * said[known] + OWN_SHARE * F.one_hot(own[known], said.shape[1])
        return mixed(Outputs(log_probabilities(said).to(batch.image.device)), batch.mix)


def _one_hot(label: torch.Tensor, classes: int, sure: float) -> torch.Tensor:
    return F.one_hot(label, classes) * sure + (1 - sure) / classes


def quality(logits: np.ndarray, label: np.ndarray, *, temperature: float, floor: float) -> dict[str, Any]:
    """Return precision and coverage of labels at a confidence floor, from answers about images that nobody had seen.

    Percent, with Wilson's 95 % interval; precision is None where no answer reaches the floor.
    """
    from potstill.measure.statistics import proportion_interval

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

"""A teacher that is a model: evaluated in every step, or once for every view, with a check before anybody learns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from potstill import artifacts, distributed, progress
from potstill.data.draws import permutation
from potstill.data.loader import Batch, Loader
from potstill.data.manifest import UNLABELLED
from potstill.errors import RunError
from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.stages.dataset import Data
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.teachers import logit_codec
from potstill.teachers.base import Teacher
from potstill.teachers.live import ModelTeacher
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.training import devices, predict
from potstill.training.predict import Model
from potstill.words import file_size, plural

PROBED = 32  # rows that are evaluated again
TOLERANCE = {"fp32": 0.02, "bf16": 0.06}  # of a probability, between one pass and another over the same image


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplayedTeacher(TeacherSource):
    """A teacher whose `model` evaluates images. data, replay: the training that it is bound to."""

    model: Model = field()
    data: Data | None = None
    replay: Replay | None = None
    _functions: dict[tuple[Tap, ...], Teacher] = field(default_factory=dict, init=False, repr=False)

    def bind(self, data: Data, replay: Replay) -> ReplayedTeacher:
        """Return this teacher for the training images of `data`, evaluated as `replay` says."""
        return dataclasses.replace(self, data=data, replay=replay)

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`, made once for the same taps; features are never stored."""
        if taps not in self._functions:
            self._functions[taps] = self._function(taps)
        return self._functions[taps]

    def _function(self, taps: tuple[Tap, ...]) -> Teacher:
        data, replay = self.data, self.replay
        assert data is not None and replay is not None, "a teacher teaches once it is bound to a training"
        on = self.placed()
        views = replay.views.number(replay.epochs)
        live = bool(taps) or not replay.stored or views is None
        passes = replay.epochs * replay.students if live or views is None else views
        precision = predict.resolve_precision("auto", on, self.model, passes * len(data.manifest.rows("train")))
        if taps and replay.stored:
            progress.note("Features are not stored: the teacher is evaluated again in every step, which takes longer.")
        if live or views is None:
            return self.live(precision, taps)
        loader = data.loader(augment=replay.views.augment, seed=replay.views.seed, device=on)
        progress.note(views_in_words(views, replay.epochs, replay.students))
        return self.stored(data, loader, replay.folder, views=views, precision=precision)

    def placed(self) -> torch.device:
        """Return the device that images are made on, with the model on it where it can be moved."""
        return devices.device()

    def live(self, precision: str, taps: tuple[Tap, ...]) -> Teacher:
        """Return it, evaluated in every step."""
        return ModelTeacher(self.model)

    def stored(self, data: Data, loader: Loader, folder: Path, *, views: int, precision: str) -> Teacher:
        """Return its logits of every view, evaluating it for those missing in a store under `folder`."""
        rows, classes = data.manifest.rows("train"), len(data.manifest.classes)
        best = logit_codec.kept(classes, len(rows), views)
        source = source_of(self, data, loader, precision) | {"classes kept": best}
        store = Store(folder / f"teacher-{artifacts.fingerprint(source)[:12]}", rows, views, source)
        fill(store, self.model, loader, precision=precision, classes=classes, best=best)
        return StoredTeacher(store, classes)


def source_of(teacher: TeacherSource, data: Data, loader: Loader, precision: str) -> dict[str, Any]:
    """Return all that decides a teacher's logits of a view."""
    return {
        "teacher": teacher.identity,
        "normalisation": normalisation(teacher.card),
        "images": pixels_fingerprint(data),
        "image size": [list(data.crop), data.resize],
        "augmentation": loader.view.fingerprint,
        "precision": precision,
    }


def fill(store: Store, model: Model, loader: Loader, *, precision: str, classes: int, best: int | None) -> None:
    """Evaluate the model for what the store lacks, then check it; note beforehand where it will be large."""
    if not store.complete:
        count = len(store.rows) * store.views
        size = count * logit_codec.row_bytes(classes, best)
        speed = predict.images_a_second(model, loader, store.rows, precision=precision) * distributed.world()
        progress.note(caching_in_words(count, size, count / speed))
        if best is not None:
            progress.note(
                f"Of each view the best {best} of {classes} classes are kept, and the sum of the others: with all of "
                f"them it would take {file_size(count * logit_codec.row_bytes(classes, None))}."
            )
        if size > logit_codec.LARGEST_STORE:
            progress.note("That is much to store; fewer `views` take less.")
    predict.fill_store(store, model, loader, precision=precision, best=best)
    verify(store, model, loader, classes=classes, precision=precision)


def views_in_words(views: int, epochs: int, students: int) -> str:
    """Return what storing so many views means, and what it saves."""
    passes = f"{plural(views, 'forward pass')} per image"
    saved = f"{passes} instead of {epochs * students}" if students * epochs > views else passes
    if views >= epochs:
        return f"Caching teacher outputs for every augmented view ({saved})."
    return (
        f"Caching teacher outputs for {plural(views, 'view')} of each image, repeated over {epochs} epochs ({saved})."
    )


def caching_in_words(count: int, size: int, seconds: float) -> str:
    """Return how much work is ahead: logits of how many views, of how many bytes together, in how many seconds."""
    duration = f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"Caching teacher logits: {plural(count, 'view')}, {file_size(size)}, about {duration}."


def verify(store: Store, model: Model, loader: Loader, *, classes: int, precision: str) -> None:
    """Evaluate the teacher again for a few views and compare; raise `RunError` where its outputs are others."""
    batch = probe(store, loader)
    stored = torch.softmax(StoredTeacher(store, classes).read(batch), 1)
    ((_, outputs),) = predict.predict(model, [batch], precision=precision)
    off = (F.softmax(outputs.logits.to(stored.device), 1) - stored).abs().amax(1)
    wrong = int((off > TOLERANCE[precision]).sum())
    if wrong:
        raise RunError(
            f"The stored logits in {store.folder} do not fit these images: evaluated again for {len(off)} of them, the "
            f"teacher gave other probabilities for {wrong}, by up to {float(off.max()):.2f}. Remove that folder and "
            "run the same command again; if that does not help, set teacher.stored=false."
        )


def probe(store: Store, loader: Loader) -> Batch:
    """Return a batch of a few stored rows in a few views, the same ones every time."""
    rows = store.rows[permutation(0, 0, len(store.rows), "probe")[:PROBED]]
    return loader.batch(rows, np.arange(len(rows)) % store.views)


def normalisation(card: Card) -> list[list[float]]:
    """Return how a model sees an image."""
    return [list(card.mean), list(card.std), list(card.size)]


def pixels_fingerprint(data: Data) -> str:
    """Return the fingerprint of the images, whatever their labels: labels do not change a teacher's logits."""
    unlabelled = np.full(len(data.manifest), UNLABELLED)
    return data.manifest.with_labels(unlabelled).fingerprint

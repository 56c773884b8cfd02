"""A teacher that is a model: evaluated in every step, or once for every view with its logits cached and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from potstill.teachers.prediction_store import WHOLE, Store, Stripe
from potstill.teachers.stored import StoredTeacher
from potstill.training import devices, predict
from potstill.training.predict import Model
from potstill.words import file_size, plural

PROBED = 32  # rows that are evaluated again for the check
TOLERANCE = {"fp32": 0.02, "bf16": 0.06}  # of a probability, between two passes over the same image


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplayedTeacher(TeacherSource):
    """A teacher whose `model` evaluates images. data, replay: the training it is bound to."""

    model: Model = field()
    data: Data | None = None
    replay: Replay | None = None
    _functions: dict[tuple[Tap, ...], Teacher] = field(default_factory=dict, init=False, repr=False)

    def bind(self, data: Data, replay: Replay) -> ReplayedTeacher:
        """Return this teacher for the training images of `data`, evaluated as `replay` says."""
        bound = dataclasses.replace(self, data=data, replay=replay)
        object.__setattr__(bound, "_validation", self._validation)  # the same for every training
        return bound

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`, cached by taps; features are never stored."""
        if taps not in self._functions:
            self._functions[taps] = self._function(taps)
        return self._functions[taps]

    def _function(self, taps: tuple[Tap, ...]) -> Teacher:
        data, replay = self.data, self.replay
        assert data is not None and replay is not None, "call `bind` first"
        on = self.placed()
        views = replay.views.number(replay.epochs)
        live = bool(taps) or not replay.stored or views is None
        if taps and replay.stored:
            progress.note(
                "Teacher features are not cached: the teacher is evaluated in every step, which takes longer."
            )
        if live or views is None:
            self._note_of_enlarged(data)
            return self.live(self._measured(data, replay.epochs * replay.students), taps)
        data = data.for_input_of(self.card)
        loader = data.loader(augment=replay.views.augment, seed=replay.views.seed, device=on)
        progress.note(views_in_words(views, replay.epochs, replay.students))
        return self.stored(data, loader, replay.folder, views=views)

    def _measured(self, data: Data, passes: int) -> str:
        """Return the precision that is faster for a number of passes over the training images."""
        images = passes * len(data.manifest.rows("train"))
        return predict.resolve_precision("auto", self.placed(), self.model, images)

    def _note_of_enlarged(self, data: Data) -> None:
        """Note a teacher that is evaluated on the student's photos although it was made for larger ones."""
        own, given = max(self.card.crop), max(data.crop)
        if data.photos is not None and own > given:
            progress.note(
                f"A teacher that is evaluated in every step sees the student's photos: {given} pixels, enlarged to its "
                f"{own}, which may cost it accuracy. Cached logits are of {own} pixels; --size {own} gives both these."
            )

    def fill(self) -> None:
        """Compute its logits of every view, if they are cached."""
        if self.replay is not None and self.replay.stored:
            self.function()

    def placed(self) -> torch.device:
        """Return the device of the images, after moving the model to it if possible."""
        return devices.device()

    def live(self, precision: str, taps: tuple[Tap, ...]) -> Teacher:
        """Return it, evaluated in every step."""
        return ModelTeacher(self.model)

    def stored(self, data: Data, loader: Loader, folder: Path, *, views: int) -> Teacher:
        """Return its stored logits of every view, computing those missing in a store under `folder`.

        The precision is that of whoever began the store: on resume another number of threads or another machine may
        prefer another one, and the logits of all students must be the same.
        """
        rows, classes = data.manifest.rows("train"), len(data.manifest.classes)
        best = logit_codec.kept(classes, len(rows), views)
        facts = source_of(self, data, loader) | {"classes kept": best}
        place = folder / f"teacher-{artifacts.fingerprint(facts)[:12]}"
        precision = first_precision(place / "precision.json", lambda: self._measured(data, views))
        store = Store(place, rows, views, facts | {"precision": precision})
        fill(store, self.model, loader, precision=precision, classes=classes, best=best)
        return StoredTeacher(store, classes)


def first_precision(file: Path, measured: Callable[[], str]) -> str:
    """Return the precision that a file holds, or else the measured one, which it holds then; in all processes alike."""
    known = distributed.broadcast(artifacts.read_json(file) if file.is_file() else None)
    return known or artifacts.write_first(file, measured())


def source_of(teacher: TeacherSource, data: Data, loader: Loader) -> dict[str, Any]:
    """Return what a teacher's logits of a view depend on, beside the precision."""
    return {
        "teacher": teacher.identity,
        "normalisation": normalisation(teacher.card),
        "images": pixels_fingerprint(data),
        "image size": [list(data.crop), data.resize] + ([] if data.fit == "crop" else [data.fit]),
        "augmentation": loader.view.fingerprint,
    }


def fill(
    store: Store,
    model: Model,
    loader: Loader,
    *,
    precision: str,
    classes: int,
    best: int | None,
    stripe: Stripe = WHOLE,
) -> None:
    """Compute the missing logits of a store, or of a stripe of it, and check it; note its size beforehand."""
    if not store.complete:
        count = len(store.rows) * store.views // stripe[1]
        size = count * logit_codec.row_bytes(classes, best)
        speed = predict.images_a_second(model, loader, store.rows, precision=precision) * distributed.world()
        progress.note(caching_in_words(count, size, count / speed))
        if best is not None:
            progress.note(
                f"Keeping the top {best} of {classes} classes of each view and the sum of the others; all classes "
                f"would take {file_size(count * logit_codec.row_bytes(classes, None))}."
            )
        if size > logit_codec.LARGEST_STORE:
            progress.note(f"The store needs {file_size(size)}; fewer `views` reduce it.")
    predict.fill_store(store, model, loader, precision=precision, best=best, stripe=stripe)
    if stripe == WHOLE:
        verify(store, model, loader, classes=classes, precision=precision)


def views_in_words(views: int, epochs: int, students: int) -> str:
    """Return a sentence about the cached views and the saved forward passes."""
    passes = f"{plural(views, 'forward pass')} per image"
    saved = f"{passes} instead of {epochs * students}" if students * epochs > views else passes
    if views >= epochs:
        return f"Caching teacher outputs for every augmented view ({saved})."
    return (
        f"Caching teacher outputs for {plural(views, 'view')} of each image, repeated over {epochs} epochs ({saved})."
    )


def caching_in_words(count: int, size: int, seconds: float) -> str:
    """Return a sentence about the work ahead: number of views, bytes, and estimated seconds."""
    duration = f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"Caching teacher logits: {plural(count, 'view')}, {file_size(size)}, about {duration}."


def verify(store: Store, model: Model, loader: Loader, *, classes: int, precision: str) -> None:
    """Evaluate the teacher again for a few views and compare; raise `RunError` if its outputs differ."""
    batch = probe(store, loader)
    stored = torch.softmax(StoredTeacher(store, classes).read(batch), 1)
    ((_, outputs),) = predict.predict(model, [batch], precision=precision)
    off = (F.softmax(outputs.logits.to(stored.device), 1) - stored).abs().amax(1)
    wrong = int((off > TOLERANCE[precision]).sum())
    if wrong:
        raise RunError(
            f"The stored logits in {store.folder} do not match these images: evaluated again for {len(off)} of them, "
            f"the teacher's probabilities differ for {wrong}, by up to {float(off.max()):.2f}. Remove that folder and "
            "run the same command again; if that does not help, set teacher.stored=false."
        )


def probe(store: Store, loader: Loader) -> Batch:
    """Return a batch of a few stored rows and views, always the same ones."""
    rows = store.rows[permutation(0, 0, len(store.rows), "probe")[:PROBED]]
    return loader.batch(rows, np.arange(len(rows)) % store.views)


def normalisation(card: Card) -> list[list[float]]:
    """Return mean, std and size of a model's input."""
    return [list(card.mean), list(card.std), list(card.size)]


def pixels_fingerprint(data: Data) -> str:
    """Return the fingerprint of the images without their labels, which do not change a teacher's logits."""
    unlabelled = np.full(len(data.manifest), UNLABELLED)
    return data.manifest.with_labels(unlabelled).fingerprint

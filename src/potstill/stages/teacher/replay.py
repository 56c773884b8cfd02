"""How a teacher is asked: live in every step, or once about every view, with a replay check before anybody learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from potstill import artifacts, distributed, progress
from potstill.data.draws import permutation
from potstill.data.loader import Loader
from potstill.data.manifest import UNLABELLED
from potstill.errors import RunError
from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import Recipe
from potstill.stages.teacher.prepared import Taught
from potstill.teachers import logit_codec
from potstill.teachers.base import Teacher
from potstill.teachers.ensemble import EnsembleTeacher
from potstill.teachers.live import LiveTeacher, ModelTeacher
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.training import devices, predict
from potstill.training.predict import Model

PROBED = 32  # rows that are asked about again
TOLERANCE = {"fp32": 0.02, "bf16": 0.06}  # of a probability, between one pass and another over the same image


def as_function(recipe: Recipe, taught: Taught, data: Data, stores: Path, *, taps: Sequence[Tap] = ()) -> Teacher:
    """Return the teacher as `Batch -> Outputs`: stored for every view the student will see, or live.

    taps: where its features are wanted, which are never stored.
    """
    if taught.members:
        functions = [as_function(recipe, member, data, stores) for member in taught.members]
        return EnsembleTeacher(functions, taught.weights, average=taught.average)
    if taught.given is not None:
        progress.note("The teacher's answers come from a file, one an image: every view of it gets the same.")
        return taught.given
    if taught.labels is not None:
        return taught.labels(recipe, data)
    on = devices.device()
    if isinstance(taught.model, Classifier):
        taught.model.to(on)
    live_passes = recipe.train.epochs * recipe.seeds
    passes = recipe.view_count if recipe.teacher.stored and not taps else live_passes
    precision = predict.resolve_precision("auto", on, taught.model, passes * len(data.manifest.rows("train")))
    if taps and recipe.teacher.stored:
        progress.note("Features are not stored: the teacher is asked again in every step, which takes longer.")
    if taps or not recipe.teacher.stored:
        return live(taught.model, precision, taps)
    loader = data.loader(augment=recipe.augment, seed=recipe.seed, device=on)
    progress.note(views_in_words(recipe.view_count, recipe.train.epochs, recipe.seeds))
    return stored(taught, data, loader, stores, views=recipe.view_count, precision=precision)


def live(model: Model, precision: str, taps: Sequence[Tap] = ()) -> Teacher:
    """Return a model that is asked in every step."""
    if isinstance(model, Classifier):
        return LiveTeacher(model.replace(taps=tuple(taps)), precision=precision)
    return ModelTeacher(model)


def stored(taught: Taught, data: Data, loader: Loader, stores: Path, *, views: int, precision: str) -> Teacher:
    """Return the teacher's answers, asking for those that are missing in a store under `stores`."""
    rows, classes = data.manifest.rows("train"), len(data.manifest.classes)
    best = logit_codec.kept(classes, len(rows), views)
    source = source_of(taught, data, loader, precision) | {"classes kept": best}
    store = Store(stores / f"teacher-{artifacts.fingerprint(source)[:12]}", rows, views, source)
    fill(store, taught.model, loader, precision=precision, classes=classes, best=best)
    return StoredTeacher(store, classes)


def source_of(taught: Taught, data: Data, loader: Loader, precision: str) -> dict[str, Any]:
    """Return all that decides what a teacher says of a view."""
    return {
        "teacher": taught.identity,
        "normalisation": normalisation(taught.card),
        "images": pixels_fingerprint(data),
        "image size": [list(data.crop), data.resize],
        "augmentation": loader.view.fingerprint,
        "precision": precision,
    }


def fill(store: Store, model: Model, loader: Loader, *, precision: str, classes: int, best: int | None) -> None:
    """Ask about what the store lacks, then check it; say beforehand where it will be large."""
    if not store.complete:
        count = len(store.rows) * store.views
        size = count * logit_codec.row_bytes(classes, best)
        speed = predict.images_a_second(model, loader, store.rows, precision=precision) * distributed.world()
        progress.note(asking_in_words(count, size, count / speed))
        if best is not None:
            progress.note(
                f"Of each answer the best {best} of {classes} classes are kept, and the sum of the others: with all of "
                f"them it would take {count * logit_codec.row_bytes(classes, None) / 1e9:.1f} GB."
            )
        if size > logit_codec.LARGEST_STORE:
            progress.note("That is much to store; fewer `views` take less.")
    predict.fill_store(store, model, loader, precision=precision, best=best)
    verify(store, model, loader, classes=classes, precision=precision)


def views_in_words(views: int, epochs: int, students: int) -> str:
    """Return what storing so many views means, and what it saves."""
    saved = f"{views} times instead of {epochs * students}" if students * epochs > views else f"{views} times"
    if views >= epochs:
        text = "Every epoch shows its own view of an image, and the teacher is asked about each of them: exact replay."
    else:
        text = f"Every image is shown in {views} views, which the {epochs} epochs go through in turn."
    return f"{text} The teacher looks at each image {saved}."


def asking_in_words(count: int, size: int, seconds: float) -> str:
    """Return how much work is ahead: how many answers, of how many bytes together, in how many seconds."""
    duration = f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"The teacher gives {count:,} answers: {size / 1e6:,.1f} MB on disk, in about {duration}."


def verify(store: Store, model: Model, loader: Loader, *, classes: int, precision: str) -> None:
    """Ask the teacher again about a few views and compare; raise `RunError` where it says something else."""
    batch = probe(store, loader)
    was = torch.softmax(StoredTeacher(store, classes).read(batch), 1)
    ((_, outputs),) = predict.predict(model, [batch], precision=precision)
    off = (F.softmax(outputs.logits.to(was.device), 1) - was).abs().amax(1)
    wrong = int((off > TOLERANCE[precision]).sum())
    if wrong:
        raise RunError(
            f"The stored answers in {store.folder} do not fit these images: asked again about {len(off)} of them, the "
            f"teacher gave other probabilities for {wrong}, by up to {float(off.max()):.2f}. Remove that folder and "
            "run the same command again; if that does not help, set teacher.stored=false."
        )


def probe(store: Store, loader: Loader) -> Any:
    """Return a batch of a few stored rows in a few views, the same ones every time."""
    rows = store.rows[permutation(0, 0, len(store.rows), "probe")[:PROBED]]
    return loader.batch(rows, np.arange(len(rows)) % store.views)


def normalisation(card: Card) -> list[list[float]]:
    """Return how a model sees an image."""
    return [list(card.mean), list(card.std), list(card.size)]


def pixels_fingerprint(data: Data) -> str:
    """Return the fingerprint of the images, whatever their labels: labels do not change what a teacher says."""
    unlabelled = np.full(len(data.manifest), UNLABELLED)
    return data.manifest.with_labels(unlabelled).fingerprint

"""A teacher that is a network: of a run or stage folder, by name with its weights, or by name and trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from potstill import artifacts
from potstill.artifacts import sha256
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.open import find
from potstill.models import packages
from potstill.models.freeze import bits
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.models.weights import present
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher
from potstill.stages.teacher.input_size import own_size
from potstill.stages.teacher.prepared import Kind, Preparation, TeacherSource, match, record_of
from potstill.stages.teacher.pretrained import with_new_head
from potstill.stages.teacher.replay import ReplayedTeacher
from potstill.stages.training import TrainingJob, train_classifier
from potstill.teachers.base import Teacher
from potstill.teachers.live import LiveTeacher
from potstill.training import devices
from potstill.words import plural

APART = 500_000  # added to the seed: with the student's network and seed the teacher would be the control again


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkTeacher(ReplayedTeacher):
    """A network, with logits and features."""

    model: Classifier = field()

    @property
    def network(self) -> Classifier:
        """The network."""
        return self.model

    def placed(self) -> torch.device:
        """Return the device of the images, after moving the network to it."""
        on = devices.device()
        self.model.to(on)
        return on

    def live(self, precision: str, taps: tuple[Tap, ...]) -> Teacher:
        """Return it, evaluated in every step, with the features at `taps`."""
        return LiveTeacher(self.model.replace(taps=taps), precision=precision)

    def deployed(self, export: Callable[[Classifier], Path]) -> Path:
        """Return its exported file, to measure its size and latency."""
        return export(self.model)

    def assert_unchanged(self) -> None:
        """Assert that the network did not change by a bit, if it was evaluated in every step."""
        for function in self._functions.values():
            if isinstance(function, LiveTeacher):
                function.assert_unchanged()


def _prepare(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    model = find(config.model)
    if isinstance(model, Classifier):
        return _from_folder(model, config, data, work)
    if config.new_head:
        return _with_new_head(config, data, work)
    return _trained_here(config, data, work) if is_trained_here(config) else _with_weights(config, data, work)


def is_trained_here(config: OneTeacher) -> bool:
    """Return whether a teacher of this kind has no weights, so that its preparation is a training."""
    return not config.weights and not config.new_head and find(config.model) is None


def _from_folder(model: Classifier, config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    matched = match(model, config, data)
    identity = matched.identity(bits(model))
    inputs = {"data": data.manifest.fingerprint, "teacher": identity}
    record = artifacts.stage(work.folder, inputs, lambda: record_of(matched.model, data))
    return NetworkTeacher(
        model=matched.model,
        card=matched.model.card,
        identity=identity,
        title=f"Loaded the teacher from {config.model}",
        record=record,
        known=matched.class_map.known,
        facts=matched.facts,
    )


def _with_weights(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    classes = (config.card and config.card.classes) or data.manifest.classes
    own = replace(data, manifest=replace(data.manifest, classes=classes))
    classifier = own.model(config.model, weights=config.weights, options=config.options, seed=work.seed)
    matched = match(classifier, config, data)
    weights = classifier.card.weights_sha256

    def keep() -> dict[str, Any]:
        save_model(classifier, work.folder)
        return record_of(matched.model, data)

    inputs = {"data": data.manifest.fingerprint, "weights": weights, "map": matched.facts.get("map")}
    record = artifacts.stage(work.folder, inputs, keep)
    return NetworkTeacher(
        model=matched.model,
        card=matched.model.card,
        identity=matched.identity(weights),
        title=f"Loaded the teacher's weights from {Path(str(config.weights)).name}",
        record=record,
        known=matched.class_map.known,
        facts=matched.facts,
    )


def _with_new_head(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    """Fit a head for the data's classes to pretrained weights."""
    file = packages.resolved(config.model, config.weights or packages.AUTO)
    inputs = {
        "data": data.manifest.fingerprint,
        "model": config.to_json(),
        "weights": sha256(present(file)) if isinstance(file, Path) else file,
        "seed": work.seed,
        "balance": work.train.balance,
    }

    def fit() -> dict[str, Any]:
        classifier = with_new_head(config, data, seed=work.seed, balance=work.train.balance)
        save_model(classifier, work.folder)
        return record_of(classifier, data)

    record = artifacts.stage(work.folder, inputs, fit)
    model = load_model(work.folder)
    title = f"Fitted a head to the pretrained weights of {config.model}"
    return NetworkTeacher(model=model, card=model.card, identity=model.card.weights_sha256, title=title, record=record)


def _trained_here(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    """Train a network on every label of the train split."""
    seed = work.seed + APART
    classifier = data.model(config.model, options=config.options, seed=seed)
    views = replace(work.views, count=None, mix=None)
    inputs = {
        "data": data.manifest.fingerprint,
        "model": classifier.card.model,
        "options": config.options,
        "train": work.train.to_json(),
        "augment": views.augment,
        "seed": seed,
    }
    terms = (Term(loss="cross_entropy"),)
    job = TrainingJob(terms, work.train, views, seed, labelled_share=1.0, title="Training teacher")
    record = artifacts.stage(work.folder, inputs, lambda: train_classifier(classifier, data, job, work.folder).record)
    model = load_model(work.folder)
    title = f"Trained the teacher {config.model} for {plural(work.train.epochs, 'epoch')}"
    return NetworkTeacher(model=model, card=model.card, identity=model.card.weights_sha256, title=title, record=record)


KIND = Kind(lambda config: True, lambda config: own_size(config.model), _prepare)
"""The kind of all settings that no other kind recognises."""

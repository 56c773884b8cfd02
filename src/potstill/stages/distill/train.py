"""Student and control: the same network, initialisation, batches and steps; only the teacher's terms differ."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from potstill import artifacts, progress
from potstill.data.loader import Order
from potstill.data.manifest import Manifest
from potstill.data.splits import keep_labels
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.aux_heads import attach_aux
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.objectives.feature_terms import Wiring, wire
from potstill.objectives.mutual import Mutual, Peers
from potstill.objectives.objective import Objective, Term, check, control_terms, lecture_terms
from potstill.stages.dataset import Data
from potstill.stages.distill.search import SEED as SEARCH_SEED
from potstill.stages.distill.search import choose
from potstill.stages.distill.student import from_folder, start_of
from potstill.stages.distill.watch import Watch
from potstill.stages.recipe import Recipe
from potstill.stages.teacher.prepared import Taught
from potstill.stages.teacher.replay import as_function
from potstill.teachers.base import Teacher
from potstill.teachers.ensemble import EnsembleTeacher
from potstill.teachers.live import LiveTeacher
from potstill.training import devices, engine

PEER = "peer"  # folder of the network that learned beside a student


@dataclass(frozen=True)
class Trained:
    """One student or control after training."""

    folder: Path
    seed: int
    record: dict[str, Any]

    def load(self) -> Classifier:
        """Return the trained model."""
        return load_model(self.folder)


@dataclass(frozen=True)
class Pair:
    """The students and controls of one experiment, a seed each."""

    students: list[Trained]
    controls: list[Trained]
    manifest: Manifest
    terms: tuple[Term, ...] = ()
    search: dict[str, Any] | None = None


def terms_of(recipe: Recipe) -> tuple[Term, ...]:
    """Return the objective's terms, as the recipe spells them."""
    chosen = recipe.objective
    return chosen.terms or lecture_terms(alpha=chosen.alpha, temperature=chosen.temperature, loss=chosen.loss)


class Teaching:
    """A teacher at work. It is asked only once somebody is still to be taught, and proves that it did not change."""

    def __init__(self, recipe: Recipe, taught: Taught, data: Data, stores: Path) -> None:
        self._recipe, self._data, self._stores = recipe, data, stores
        self._functions: dict[tuple[Tap, ...], Teacher] = {}
        self.taught = taught

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return the teacher as `Batch -> Outputs`. taps: where its features are wanted."""
        if taps not in self._functions:
            self._functions[taps] = as_function(self._recipe, self.taught, self._data, self._stores, taps=taps)
        return self._functions[taps]

    @property
    def network(self) -> Classifier | None:
        """The teacher where it can be looked into, None where it only gives answers."""
        return self.taught.model if isinstance(self.taught.model, Classifier) else None

    @functools.cached_property
    def validation(self) -> np.ndarray | None:
        """What it says of the labelled validation images, logits float32 [N, K]; None where it cannot tell."""
        return self.taught.said(self._data, self._data.manifest.rows("validation", labelled=True))

    def objective(self, recipe: Recipe, data: Data, terms: Sequence[Term], wiring: Wiring) -> Objective:
        """Return what a student of this teacher minimises."""
        classes, aux_weight = len(data.manifest.classes), recipe.objective.aux_weight
        if self.taught.peer:
            return Mutual(terms, classes=classes, aux_weight=aux_weight)
        return Objective(
            terms, classes=classes, teacher=self.function(wiring.taps), aux_weight=aux_weight,
            connections=wiring.connections, known=self.taught.known,
        )  # fmt: skip

    def assert_unchanged(self) -> None:
        """Assert that a live teacher is bit for bit what it was."""
        for function in self._functions.values():
            if isinstance(function, LiveTeacher | EnsembleTeacher):
                function.assert_unchanged()


def experiment(recipe: Recipe, data: Data, taught: Taught, folder: Path, stores: Path) -> Pair:
    """Train control and student for every seed of the recipe, in `folder`/control and `folder`/distill."""
    recipe, data = in_stored_views(recipe, taught), with_labels_of(recipe, data)
    teaching = Teaching(recipe, taught, data, stores)
    terms, search = chosen_terms(recipe, data, teaching, folder / "search")
    check_terms(recipe, data, terms, teaching)
    seeds = range(recipe.seed, recipe.seed + recipe.seeds)
    controls = [train_one(recipe, data, control_terms(terms), None, folder / "control", seed) for seed in seeds]
    students = [train_one(recipe, data, terms, teaching, folder / "distill", seed) for seed in seeds]
    teaching.assert_unchanged()
    return Pair(students, controls, data.manifest, terms, search)


def chosen_terms(
    recipe: Recipe, data: Data, teaching: Teaching, folder: Path
) -> tuple[tuple[Term, ...], dict[str, Any] | None]:
    """Return the recipe's terms, or those that a search on validation finds, and the record of the search.

    `folder`/chosen.yaml is then the same recipe with the terms that were found written out.
    """
    if recipe.objective.method is None:
        return terms_of(recipe), None

    def trial(terms: Sequence[Term], epochs: int, name: str) -> tuple[float, float]:
        train = recipe.train.model_copy(update={"epochs": epochs})
        short = recipe.model_copy(update={"train": train, "views": recipe.view_count})
        tried = train_one(short, data, terms, teaching, folder / name, recipe.seed + SEARCH_SEED)
        return tried.record["validation_accuracy"][train.select], tried.record["seconds"]

    images = len(data.manifest.rows("validation", labelled=True))
    found = choose(recipe, classes=len(data.manifest.classes), validation_images=images, trial=trial)
    written = recipe.to_json() | {"objective": {"terms": found.record["terms"]}}
    artifacts.write_text(folder / "chosen.yaml", yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    progress.note(found.sentence)
    return found.terms, found.record


def check_terms(recipe: Recipe, data: Data, terms: Sequence[Term], teaching: Teaching | None) -> None:
    """Raise `ConfigError` for terms that are wrong, or taps that are not there, before any work."""
    known = teaching.taught.known if teaching else None
    check(terms, classes=len(known or data.manifest.classes), teacher=teaching is not None)
    if teaching and teaching.taught.peer:
        Mutual(terms, classes=len(data.manifest.classes))
    _wire(recipe, data, terms, teaching, new_student(recipe, data, recipe.seed), 1, recipe.seed)


def in_stored_views(recipe: Recipe, taught: Taught) -> Recipe:
    """Return the recipe with as many views as there are soft labels of, where it does not say how many."""
    if taught.views is None or recipe.views is not None or recipe.view_count <= taught.views:
        return recipe
    progress.note(
        f"There are soft labels of {taught.views} views of each image: the student and its control see these again and "
        "again, instead of a new view in every epoch."
    )
    return recipe.model_copy(update={"views": taught.views})


def with_labels_of(recipe: Recipe, data: Data) -> Data:
    """Return the data with the labels that the recipe gives its student."""
    if recipe.student.labels is None:
        return data
    return replace(data, manifest=keep_labels(data.manifest, recipe.student.labels, seed=recipe.data.seed))


def train_one(
    recipe: Recipe, data: Data, terms: Sequence[Term], teaching: Teaching | None, parent: Path, seed: int
) -> Trained:
    """Return one trained model in `parent`/seed-N, training it first unless that was done with the same inputs."""
    folder = parent / f"seed-{seed}"
    inputs = {
        "data": data.manifest.fingerprint,
        "student": recipe.student.to_json() | start_of(recipe.student),
        "terms": [term.to_json() for term in terms],
        "train": recipe.train.to_json(),
        "augment": [recipe.augment, recipe.mix, recipe.mix_alpha, recipe.view_count],
        "teacher": teaching.taught.identity if teaching else None,
        "seed": seed,
    }
    record = artifacts.stage(folder, inputs, lambda: _train(recipe, data, terms, teaching, folder, seed))
    return Trained(folder, seed, record)


def _train(
    recipe: Recipe, data: Data, terms: Sequence[Term], teaching: Teaching | None, folder: Path, seed: int
) -> dict[str, Any]:
    on = devices.device()
    student = new_student(recipe, data, seed).to(on)
    loader = data.loader(
        augment=recipe.augment, seed=recipe.seed, device=on, mix=recipe.mix, mix_alpha=recipe.mix_alpha
    )
    order = Order(
        data.manifest, batch_size=recipe.train.batch_size, seed=seed, views=recipe.view_count,
        labelled_share=recipe.student.labelled_share,
    )  # fmt: skip
    wiring = _wire(recipe, data, terms, teaching, student, recipe.train.epochs * order.steps_per_epoch, seed)
    objective = teaching.objective(recipe, data, terms, wiring) if teaching else _control(recipe, data, terms)
    peer = teaching.taught.peer(seed).to(on) if teaching and teaching.taught.peer else None
    # Nothing that is tied to a student may decide how it is computed: its control is computed the same way.
    plan = engine.plan_training(student, recipe.train, order)
    watch = Watch(terms, teaching.validation if teaching else None)
    fitted = engine.fit(
        Peers(wiring.student, peer) if peer else wiring.student, objective, loader, order, recipe.train,
        folder=folder, seed=seed, validate=watch.validator(data, loader), watch=watch, plan=plan,
        title=f"{'student' if teaching else 'control'}, seed {seed}",
    )  # fmt: skip
    save_model(wiring.student, folder)
    if peer:
        save_model(peer, folder / PEER)
    return {
        **fitted.to_json(),
        "parameters": zoo.count_parameters(wiring.student),
        "extra_parameters": zoo.count_parameters(objective.learned),
    }


def _control(recipe: Recipe, data: Data, terms: Sequence[Term]) -> Objective:
    return Objective(terms, classes=len(data.manifest.classes), teacher=None, aux_weight=recipe.objective.aux_weight)


def _wire(
    recipe: Recipe, data: Data, terms: Sequence[Term], teaching: Teaching | None, student: Classifier, steps: int,
    seed: int,
) -> Wiring:  # fmt: skip
    rows = torch.from_numpy(data.manifest.rows("train"))
    network = teaching.network if teaching else None
    return wire(terms, student, network, rows=rows, steps=steps, seed=seed, mixed=recipe.mix is not None)


def new_student(recipe: Recipe, data: Data, seed: int) -> Classifier:
    """Return the student of a seed as it is before training, the same for control and student.

    A folder gives its network with the weights in it (a pruned model, say), whatever the seed. Raises `ModelError`
    where what it holds cannot learn from this data.
    """
    config = recipe.student
    student = from_folder(config, data)
    if student is None:
        student = data.model(config.model, weights=config.weights, options=config.options, seed=seed)
    return attach_aux(student, config.aux, seed=seed) if config.aux else student


def warn_of_capacity(taught: Taught, student: Classifier) -> None:
    """Tell where the student is not smaller than its teacher."""
    if not isinstance(taught.model, Classifier):
        return
    theirs, ours = zoo.count_parameters(taught.model), zoo.count_parameters(student)
    if ours >= theirs:
        progress.note(f"The student has {ours:,} parameters and its teacher {theirs:,}: nothing gets smaller here.")

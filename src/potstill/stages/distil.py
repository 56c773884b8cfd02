"""Student and control: the same network, initialisation, batches and steps; only the teacher's terms differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from potstill import artifacts, engine, progress
from potstill.data.loader import Order
from potstill.data.manifest import Manifest
from potstill.data.splits import keep_labels
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.objective import Objective, Term, check, control_terms, lecture_terms
from potstill.stages.data import Data
from potstill.stages.recipe import Recipe
from potstill.stages.teacher import Taught, as_function, validator
from potstill.teachers import LiveTeacher, Teacher
from potstill.wiring import Wiring, wire


@dataclass(frozen=True)
class Trained:
    """One student or control after training."""

    folder: Path
    seed: int
    record: dict[str, Any]

    def load(self) -> Classifier:
        """Return the trained model."""
        return zoo.load(self.folder)


@dataclass(frozen=True)
class Pair:
    """The students and controls of one experiment, a seed each."""

    students: list[Trained]
    controls: list[Trained]
    manifest: Manifest


def terms_of(recipe: Recipe) -> tuple[Term, ...]:
    """Return the objective's terms, as the recipe spells them."""
    chosen = recipe.objective
    return chosen.terms or lecture_terms(alpha=chosen.alpha, temperature=chosen.temperature, loss=chosen.loss)


def experiment(recipe: Recipe, data: Data, taught: Taught, folder: Path, stores: Path) -> Pair:
    """Train control and student for every seed of the recipe, in `folder`/control and `folder`/distil."""
    manifest = data.manifest
    if recipe.student.labels is not None:
        manifest = keep_labels(manifest, recipe.student.labels, seed=recipe.data.seed)
    data = replace(data, manifest=manifest)
    terms = terms_of(recipe)
    check(terms, classes=len(manifest.classes), teacher=True)  # wrong terms and taps are told before work
    wiring = _wire(recipe, data, terms, taught, new_student(recipe, data, recipe.seed), 1, recipe.seed)
    seeds = range(recipe.seed, recipe.seed + recipe.seeds)
    controls = [_stage(recipe, data, control_terms(terms), None, folder / "control", seed) for seed in seeds]
    if all(artifacts.finished(folder / "distil" / f"seed-{seed}") for seed in seeds):
        teacher: Teacher | None = lambda batch: None  # noqa: E731 (nothing is left to train)
    else:
        teacher = as_function(recipe, taught, data, stores, taps=wiring.taps)
    students = [_stage(recipe, data, terms, (teacher, taught), folder / "distil", seed) for seed in seeds]
    if isinstance(teacher, LiveTeacher):
        teacher.assert_unchanged()
    return Pair(students, controls, manifest)


def _stage(
    recipe: Recipe, data: Data, terms: Sequence[Term], teaching: tuple[Teacher, Taught] | None, parent: Path, seed: int
) -> Trained:
    folder = parent / f"seed-{seed}"
    inputs = {
        "data": data.manifest.fingerprint,
        "student": recipe.student.to_json(),
        "terms": [term.to_json() for term in terms],
        "train": recipe.train.to_json(),
        "augment": [recipe.augment, recipe.mix, recipe.mix_alpha, recipe.view_count],
        "teacher": teaching[1].identity if teaching else None,
        "seed": seed,
    }
    record = artifacts.stage(folder, inputs, lambda: _train(recipe, data, terms, teaching, folder, seed))
    return Trained(folder, seed, record)


def _train(
    recipe: Recipe, data: Data, terms: Sequence[Term], teaching: tuple[Teacher, Taught] | None, folder: Path, seed: int
) -> dict[str, Any]:
    teacher, taught = teaching or (None, None)
    on = engine.device()
    student = new_student(recipe, data, seed).to(on)
    loader = data.loader(
        augment=recipe.augment, seed=recipe.seed, device=on, mix=recipe.mix, mix_alpha=recipe.mix_alpha
    )
    order = Order(
        data.manifest, batch_size=recipe.train.batch_size, seed=seed, views=recipe.view_count,
        labelled_share=recipe.student.labelled_share,
    )  # fmt: skip
    wiring = _wire(recipe, data, terms, taught, student, recipe.train.epochs * order.steps_per_epoch, seed)
    objective = Objective(
        terms, classes=len(data.manifest.classes), teacher=teacher, aux_weight=recipe.objective.aux_weight,
        connections=wiring.connections,
    )  # fmt: skip
    fitted = engine.fit(
        wiring.student, objective, loader, order, recipe.train,
        folder=folder, seed=seed, validate=validator(data, loader),
        title=f"{'student' if teacher else 'control'}, seed {seed}",
    )  # fmt: skip
    zoo.save(wiring.student, folder)
    return fitted.to_json()


def _wire(
    recipe: Recipe, data: Data, terms: Sequence[Term], taught: Taught | None, student: Classifier, steps: int, seed: int
) -> Wiring:
    network = taught.model if taught and isinstance(taught.model, Classifier) else None
    rows = torch.from_numpy(data.manifest.rows("train"))
    return wire(terms, student, network, rows=rows, steps=steps, seed=seed, mixed=recipe.mix is not None)


def new_student(recipe: Recipe, data: Data, seed: int) -> Classifier:
    """Return the untrained student of a seed, the same for control and student."""
    config = recipe.student
    return data.model(config.model, weights=config.weights, options=config.options, seed=seed)


def warn_of_capacity(taught: Taught, student: Classifier) -> None:
    """Tell where the student is not smaller than its teacher."""
    if not isinstance(taught.model, Classifier):
        return
    theirs, ours = zoo.count_parameters(taught.model), zoo.count_parameters(student)
    if ours >= theirs:
        progress.note(f"The student has {ours:,} parameters and its teacher {theirs:,}: nothing gets smaller here.")

"""Student and control: the same network, initialisation, batches and steps; only the teacher's terms differ."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from potstill import artifacts, progress
from potstill.data.loader import SMALL_BATCH, Order
from potstill.data.manifest import Manifest
from potstill.data.splits import keep_labels
from potstill.models import zoo
from potstill.models.aux_heads import attach_aux
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term, check_parts, control_terms
from potstill.progress import parts
from potstill.stages.dataset import Data
from potstill.stages.distill.search import SEED as SEARCH_SEED
from potstill.stages.distill.search import choose
from potstill.stages.distill.student import from_folder, identity_of
from potstill.stages.distill.views import affordable_views
from potstill.stages.recipe import Recipe, StudentConfig, Views
from potstill.stages.side_by_side import SERIAL, Part, SideBySide
from potstill.stages.teacher.prepare import trained_here
from potstill.stages.teacher.prepared import NO_TEACHER, Replay, TeacherSource
from potstill.stages.training import Trained, TrainingJob, plan_of_job, train_classifier, wire_terms
from potstill.torch_context import threads
from potstill.training.autotune import ExecutionPlan
from potstill.training.settings import TrainConfig
from potstill.words import plural

FEW_STEPS = 200  # after 10 to 120, four times as many gave 12 to 35 points more (docs/log.md, 2026-11-30)


@dataclass(frozen=True)
class StudentSetup:
    """How a student is built and trained, independent of its terms, teacher and seed."""

    student: StudentConfig
    train: TrainConfig
    views: Views
    aux_weight: float = 0.3

    def job(self, terms: Sequence[Term], teacher: TeacherSource | None, seed: int) -> TrainingJob:
        """Return the training of the student of a seed, or without a teacher of its control."""
        return TrainingJob(
            tuple(terms),
            self.train,
            self.views,
            seed,
            teacher=teacher,
            labelled_share=self.student.labelled_share,
            aux_weight=self.aux_weight,
            title=f"Training {'student' if teacher else 'control'}, seed {seed}",
        )


def setup_of(recipe: Recipe) -> StudentSetup:
    """Return how the students of a recipe, and their controls, are trained."""
    return StudentSetup(recipe.student, recipe.train, recipe.training_views, recipe.objective.aux_weight)


@dataclass(frozen=True)
class Pair:
    """The students and controls of one experiment, one of each per seed."""

    students: list[Trained]
    controls: list[Trained]
    manifest: Manifest
    terms: tuple[Term, ...] = ()
    search: dict[str, Any] | None = None


@dataclass(frozen=True)
class Trainings:
    """The trainings of one experiment: its setup, labelled data, bound teacher and terms. folder: of the experiment."""

    setup: StudentSetup
    data: Data
    teacher: TeacherSource
    terms: tuple[Term, ...]
    folder: Path
    search: dict[str, Any] | None = None

    def control(self, seed: int) -> Trained:
        """Return the control of a seed in `folder`/control, trained unless it exists."""
        parts.enter(part(self.folder, "control", seed))
        return train_one(self.setup, self.data, control_terms(self.terms), None, self.folder / "control", seed)

    def student(self, seed: int) -> Trained:
        """Return the student of a seed in `folder`/distill, trained unless it exists."""
        parts.enter(part(self.folder, "student", seed))
        return train_one(self.setup, self.data, self.terms, self.teacher, self.folder / "distill", seed)

    def pairs(self, seeds: Sequence[int], side: SideBySide) -> tuple[list[Trained], list[Trained]]:
        """Return the students and the controls of all seeds."""
        plan = functools.cache(lambda: planned(self.setup, self.data, seeds[0]))

        def one(kind: str, train: Callable[[int], Trained], seed: int) -> Part[Trained]:
            return Part(self.folder / kind / f"seed-{seed}", lambda: train(seed), plan)

        controls = [one("control", self.control, seed) for seed in seeds]
        students = [one("distill", self.student, seed) for seed in seeds]
        if side.scheduler.parallel and not any(term.sees_features for term in self.terms):
            self.teacher.fill()
        trained = side.all([*controls, *students])
        return trained[len(seeds) :], trained[: len(seeds)]


def part(folder: Path, kind: str, seed: int) -> str:
    """Return the name of a training among the parts of a command."""
    return f"{folder}: {kind} {seed}"


def trainings(recipe: Recipe, data: Data, teacher: TeacherSource, folder: Path, stores: Path) -> Trainings:
    """Return the trainings of a recipe with a prepared teacher, whose logits are cached in `stores`."""
    known = () if recipe.objective.method else recipe.objective.loss_terms
    stored = recipe.teacher.stored and not recipe.objective.method
    setup = within_views(setup_of(recipe), teacher, data, known, stored=stored, seed=recipe.seed)
    data = with_labels_of(setup.student, data, seed=recipe.data.seed)
    replay = Replay(setup.views, setup.train.epochs, recipe.seeds, stores, stored=recipe.teacher.stored)
    teacher = teacher.bind(data, replay)
    terms, search = chosen_terms(recipe, setup, data, teacher, folder / "search")
    check_terms(setup, data, terms, teacher, recipe.seed)
    return Trainings(setup, data, teacher, terms, folder, search)


def experiment(
    recipe: Recipe, data: Data, teacher: TeacherSource, folder: Path, stores: Path, side: SideBySide = SERIAL
) -> Pair:
    """Train control and student for every seed of the recipe, in `folder`/control and `folder`/distill."""
    each = trainings(recipe, data, teacher, folder, stores)
    students, controls = each.pairs(range(recipe.seed, recipe.seed + recipe.seeds), side)
    return Pair(students, controls, each.data.manifest, each.terms, each.search)


def chosen_terms(
    recipe: Recipe, setup: StudentSetup, data: Data, teacher: TeacherSource, folder: Path
) -> tuple[tuple[Term, ...], dict[str, Any] | None]:
    """Return the terms of the recipe, or those chosen by a search on validation, and the record of the search.

    After a search, `folder`/chosen.yaml is the same recipe with the chosen terms.
    """
    if recipe.objective.method is None:
        return recipe.objective.loss_terms, None

    def trial(terms: Sequence[Term], epochs: int, name: str) -> tuple[float, float]:
        train = setup.train.model_copy(update={"epochs": epochs})
        short = replace(setup, train=train, views=replace(setup.views, count=setup.views.number(setup.train.epochs)))
        trained = train_one(short, data, terms, teacher, folder / name, recipe.seed + SEARCH_SEED)
        return trained.accuracy, trained.record["seconds"]

    images = len(data.manifest.rows("validation", labelled=True))
    choice = choose(recipe, classes=len(data.manifest.classes), validation_images=images, trial=trial)
    written = recipe.to_json() | {"objective": {"terms": choice.record["terms"]}}
    artifacts.write_text(folder / "chosen.yaml", yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    progress.note(choice.sentence)
    return choice.terms, choice.record


def check_terms(
    setup: StudentSetup, data: Data, terms: Sequence[Term], teacher: TeacherSource | None, seed: int
) -> None:
    """Raise `ConfigError` for wrong terms or unknown taps, before any work."""
    source = teacher or NO_TEACHER
    check_parts(terms, setup.train.accumulate)
    source.check(terms, len(data.manifest.classes))
    student = new_student(setup.student, data, seed)
    wire_terms(terms, student, source, data, views=setup.views, steps=1, seed=seed)


def within_views(
    setup: StudentSetup, teacher: TeacherSource, data: Data, terms: Sequence[Term], *, stored: bool, seed: int
) -> StudentSetup:
    """Return the setup with a number of views, unless it defines one or has one view per epoch.

    At most as many as there are soft labels. If the logits of a network are cached, so few that they cost no more than
    the training of a student (`views.affordable_views`).
    """
    limit, views = teacher.view_limit, setup.views
    if views.count is not None or views.alike:
        return setup
    if limit is not None:
        why = f"There are soft labels for {plural(limit, 'view')} of each image"
    elif stored and teacher.network is not None and not any(term.sees_features for term in terms):
        student = new_student(setup.student, data, seed)
        limit = affordable_views(teacher.network, student, setup.train.epochs)
        why = f"Using {plural(limit, 'view')} of each image, by the teacher's cost (views changes it)"
    if limit is None or setup.train.epochs <= limit:
        return setup
    progress.note(
        f"{why}: student and control are trained on these repeatedly, instead of on a new view in every epoch."
    )
    return replace(setup, views=replace(views, count=limit))


def with_labels_of(student: StudentConfig, data: Data, *, seed: int) -> Data:
    """Return the data with the number of labels of the student's settings, chosen with `seed`."""
    if student.labels is None:
        return data
    return replace(data, manifest=keep_labels(data.manifest, student.labels, seed=seed))


def train_one(
    setup: StudentSetup, data: Data, terms: Sequence[Term], teacher: TeacherSource | None, parent: Path, seed: int
) -> Trained:
    """Return one trained model in `parent`/seed-N, training it unless it exists with the same inputs."""
    folder, views = parent / f"seed-{seed}", setup.views
    inputs = {
        "data": data.manifest.fingerprint,
        "student": identity_of(setup.student),
        "terms": [term.to_json() for term in terms],
        "train": setup.train.to_json(),
        "augment": [views.augment, views.mix, views.mix_alpha, views.number(setup.train.epochs)],
        "teacher": teacher.identity if teacher else None,
        "seed": seed,
    }
    job = setup.job(terms, teacher, seed)

    def work() -> dict[str, Any]:
        return train_classifier(new_student(setup.student, data, seed), data, job, folder).record

    return Trained(folder, seed, artifacts.stage(folder, inputs, work))


def planned(setup: StudentSetup, data: Data, seed: int) -> ExecutionPlan:
    """Return the execution plan of trainings in other processes, which have one thread each; measured here, for all."""
    with threads(1):
        return plan_of_job(new_student(setup.student, data, seed), data, setup.job((), None, seed))


def new_student(config: StudentConfig, data: Data, seed: int) -> Classifier:
    """Return the student of a seed before training, the same for control and student.

    Initial weights keep all layers but a head for other classes. The model of a folder (such as a pruned one) keeps all
    its weights and ignores the seed. Raises `ModelError` if it
    cannot be trained on this data.
    """
    student = from_folder(config, data)
    if student is None:
        student = data.model(
            config.model,
            weights=config.weights,
            new_head=config.weights is not None,
            options=config.options,
            size=config.size,
            seed=seed,
        )
    return attach_aux(student, config.aux, seed=seed) if config.aux else student


def warn_of_capacity(teacher: TeacherSource, student: Classifier) -> None:
    """Note a student that is not smaller than its teacher."""
    if teacher.network is None:
        return
    large, small = zoo.count_parameters(teacher.network), zoo.count_parameters(student)
    if small >= large:
        progress.note(f"The student has {small:,} parameters, not fewer than its teacher ({large:,}).")


def warn_of_budget(recipe: Recipe, data: Data) -> None:
    """Note a student from random weights that has few optimizer steps, and a teacher that may not be balanced."""
    images, settings = len(data.manifest.rows("train")), recipe.train
    order = Order(data.manifest, batch_size=settings.batch_size, seed=0, views=None)
    steps, fewer = settings.epochs * order.steps_per_epoch, order.batch_size > SMALL_BATCH
    if steps < FEW_STEPS and recipe.student.weights is None and not Path(recipe.student.model).is_dir():
        progress.note(
            f"{plural(settings.epochs, 'epoch')} of {plural(images, 'image')} in batches of {order.batch_size} are "
            f"only {plural(steps, 'optimizer step')}, too few for a network that starts from random weights. "
            f"{f'Smaller batches (--batch-size {SMALL_BATCH}) or more' if fewer else 'More'} --epochs make more of the "
            "images."
        )
    teachers = recipe.teacher.ensemble or (recipe.teacher,)
    fitted_here = trained_here(recipe.teacher) or any(one.new_head for one in teachers)
    if settings.balance != "none" and not fitted_here:
        progress.note(
            "The balance of classes concerns the labels; the student follows the preferences of its teacher as well. "
            "Fit the teacher with the same --balance, if it was not."
        )

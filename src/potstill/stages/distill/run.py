"""The run of a recipe: data, teacher, students and controls, files, the test split once, the summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import distributed, progress
from potstill.evaluation.measured import measured, over_seeds, parity
from potstill.exporters.footprint import FLOAT
from potstill.model_files.latency import from_photo, latency_ms
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.card import Card
from potstill.progress import parts
from potstill.scheduling import Scheduler
from potstill.stages import rejection, summary, test_split
from potstill.stages.dataset import Data
from potstill.stages.distill import shipping, train
from potstill.stages.distill.chain import prepare_with_chain
from potstill.stages.distill.files import Exported, export
from potstill.stages.distill.findings import findings
from potstill.stages.distill.recipes import data_of, inside, links_of, recipes_of, replay
from potstill.stages.distill.train import Pair
from potstill.stages.golden import golden_of_validation
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import Journal
from potstill.stages.side_by_side import SideBySide, side_by_side
from potstill.stages.stage import stage
from potstill.stages.target import check_fit
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.training import Trained
from potstill.training.predict import Model
from potstill.words import plural

KINDS = {"student": "onnx", "student_int8": "int8"}
"""The name of a role's file in the evaluation file."""


@dataclass
class Experiment:
    """One comparison of students with controls, and its files. exports: by place in `pair.students`."""

    name: str
    recipe: Recipe
    pair: Pair
    exports: dict[int, Exported]
    control_export: Exported

    @property
    def best(self) -> int:
        """The place of the student that is delivered."""
        return shipping.best_seed(self.pair.students)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    stores: Path | None = None,
    why: str = "",
    command: str = "",
    scheduler: Scheduler | None = None,
) -> dict[str, Any]:
    """Run a recipe in `folder`, resuming an interrupted call; return its summary.

    stores: of the teacher's logits, if several runs share them; by default `folder`/stores. why: a note on how its
    models were chosen (`defaults.chosen`). scheduler: carries out the trainings, by default this process.
    """
    recipes, stores = recipes_of(recipe), stores or folder / "stores"
    settings = json.dumps([recipe.to_json(), str(stores.absolute())])
    side = side_by_side(scheduler, replay, settings, folder)
    return stage(
        "distill",
        recipe,
        folder,
        lambda journal: _carry_out(recipe, recipes, folder, stores, side, journal, why),
        name=recipe.name,
        command=command,
    )


def _carry_out(
    recipe: Recipe,
    recipes: dict[str, Recipe],
    folder: Path,
    stores: Path,
    side: SideBySide,
    journal: Journal,
    why: str,
) -> dict[str, Any] | None:
    """Train, export and evaluate; return the stage's part of the summary, None in processes that only train."""
    if why:
        progress.note(why)
    parts.announce("data", "teacher", *_trainings(recipes, folder), "export", "evaluation")
    data = journal.timed("data", "Read and split the images", lambda: data_of(recipe))
    student = train.new_student(recipe.student, data, recipe.seed)
    rejection.refuse(rejection.precision_of(recipe.reject, student.card), data)
    device = check_fit(recipe.target, student, bits=8 if recipe.export.int8 else FLOAT)
    teacher = journal.timed("teacher", "", lambda: prepare_with_chain(recipe.teacher, links_of(recipe), data, folder))
    journal.stages[-1]["title"] = teacher.title
    train.warn_of_capacity(teacher, student)
    train.warn_of_budget(recipe, data)
    pairs = {
        name: _pair(name, each, data, teacher, inside(name, folder), stores, side, journal)
        for name, each in recipes.items()
    }
    if not distributed.is_main():
        return None  # only training is distributed
    with distributed.alone():
        return _evaluate(recipe, recipes, pairs, data, teacher, folder, journal) | device


def _trainings(recipes: dict[str, Recipe], folder: Path) -> list[tuple[str, float]]:
    """Return the trainings of a run in their order, with their relative times."""
    return [
        (train.part(inside(name, folder), kind, seed), 1.0)
        for name, recipe in recipes.items()
        for kind in ("control", "student")
        for seed in range(recipe.seed, recipe.seed + recipe.seeds)
    ]


def _evaluate(
    recipe: Recipe,
    recipes: dict[str, Recipe],
    pairs: dict[str, Pair],
    data: Data,
    teacher: TeacherSource,
    folder: Path,
    journal: Journal,
) -> dict[str, Any]:
    """Export and evaluate the trained models; return the stage's part of the summary."""
    experiments = [_experiment(name, recipes[name], pair, data, folder, journal) for name, pair in pairs.items()]
    teacher_files = _teacher_files(teacher, data, recipe, folder)
    logits = journal.timed(
        "evaluation", "Evaluated the test split once", lambda: _open_test(experiments, teacher, data, folder)
    )
    result = _summary(recipe, experiments, teacher, teacher_files, data, logits, folder)
    main = experiments[0]
    copies = shipping.deliver(main.pair.students[main.best], main.exports[main.best], folder)
    golden_of_validation(copies, data, folder / "golden")
    return result | {"notes": _findings(result)}


def _findings(result: dict[str, Any]) -> list[str]:
    """Return notes on teacher, student and control after evaluation of the test split."""
    models = result["models"]
    teacher = models["teacher"].get("accuracy")
    student, control = (models[kind]["test_accuracy"] for kind in ("student", "control"))
    return findings(teacher, student, control, result["verdict"])


def _pair(
    name: str,
    recipe: Recipe,
    data: Data,
    teacher: TeacherSource,
    folder: Path,
    stores: Path,
    side: SideBySide,
    journal: Journal,
) -> Pair:
    label = f" ({name})" if name else ""
    return journal.timed(
        "distill",
        f"Trained {plural(recipe.seeds, 'control')} and {plural(recipe.seeds, 'student')}{label}",
        lambda: train.experiment(recipe, data, teacher, folder, stores, side),
    )


def _experiment(name: str, recipe: Recipe, pair: Pair, data: Data, folder: Path, journal: Journal) -> Experiment:
    label = f" ({name})" if name else ""
    exports, control = journal.timed(
        "export", f"Exported and quantized{label}", lambda: _files(pair, recipe, data, inside(name, folder))
    )
    return Experiment(name, recipe, pair, exports, control)


def _files(pair: Pair, recipe: Recipe, data: Data, folder: Path) -> tuple[dict[int, Exported], Exported]:
    """Return the files of the students by their place, and of the first control.

    Without 8 bits of the delivered student only: the float files of the others would answer as their networks do.
    """
    settings, int8 = recipe.export, recipe.export.int8
    places = range(len(pair.students)) if int8 else (shipping.best_seed(pair.students),)
    students = {}
    with progress.task("Exporting", total=len(places) + 1) as task:
        for place in places:
            trained = pair.students[place]
            where = folder / "export" / f"seed-{trained.seed}"
            model, source = trained.load(), trained.folder
            precision = rejection.precision_of(recipe.reject, model.card)
            students[place] = export(model, data, settings, where, source=source, int8=int8, precision=precision)
            task.advance()
        first, where = pair.controls[0], folder / "export" / "control"
        control = export(first.load(), data, settings, where, source=first.folder, int8=False)
        task.advance()
    return students, control


def _teacher_files(teacher: TeacherSource, data: Data, recipe: Recipe, folder: Path) -> list[Path]:
    """Return the teacher's file, to measure its size and latency; none if it is not a single model."""
    where = folder / "export" / "teacher"
    file = teacher.deployed(lambda network: export(network, data, recipe.export, where, source=where, int8=False).model)
    return [] if file is None else [file]


def _open_test(experiments: list[Experiment], teacher: TeacherSource, data: Data, folder: Path) -> dict[str, Any]:
    rows = data.manifest.rows("test", labelled=True)
    models: dict[str, Model] = {}
    identities = {"teacher": teacher.identity}
    tested = teacher.tested(experiments[0].pair.students[0].folder)
    if tested is not None:
        models["teacher"] = tested

    def add(name: str, model: Model, card: Card) -> None:
        models[name], identities[name] = model, card.weights_sha256

    for experiment in experiments:
        for kind, group in (("control", experiment.pair.controls), ("student", experiment.pair.students)):
            for trained in group:
                model = trained.load()
                add(key(experiment.name, kind, trained.seed), model, model.card)
        for place, files in experiment.exports.items():
            for kind, file in (("onnx", files.model), ("int8", files.int8)):
                if file is not None:
                    model = OnnxModel(file)
                    add(key(experiment.name, kind, experiment.pair.students[place].seed), model, model.card)
    logits = test_split.open_test(models, identities, data, folder / "evaluation")
    stored = teacher.logits(data, rows) if tested is None else None
    return logits if stored is None else logits | {"teacher": stored}


def key(experiment: str, kind: str, seed: int) -> str:
    """Return the name of a model's logits in the evaluation file."""
    return f"{experiment}/{kind}-{seed}" if experiment else f"{kind}-{seed}"


def _summary(
    recipe: Recipe,
    experiments: list[Experiment],
    teacher: TeacherSource,
    teacher_files: list[Path],
    data: Data,
    logits: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    manifest = data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    main, *others = experiments
    result: dict[str, Any] = {"data": data.facts(recipe.data.path)}
    rows = main.pair.manifest.rows
    result["data"]["splits"] |= {
        "labelled": len(rows("train", labelled=True)),
        "unlabelled": len(rows("train", labelled=False)),
    }
    described = _described(main, logits, label, teacher_files)
    facts = _teacher(recipe, teacher, logits, label, manifest.classes)
    for figures in described.pop("files"):
        facts |= figures
    result["models"] = {"teacher": facts, **described["models"]}
    result["verdict"], result["export"] = described["verdict"], described["export"]
    own, students = _delivered(main, logits), main.pair.students
    teachers = logits.get("teacher")
    result |= shipping.ship(result["models"], own, manifest, students, teachers, recipe, folder)
    if main.pair.search is not None:
        result["search"] = main.pair.search
    result["comparisons"] = []
    for other in others:
        figures = _described(other, logits, label, [])
        text = _description(recipe.comparisons[other.name])
        result["comparisons"].append(
            {"name": other.name, "text": text, "models": figures["models"], "verdict": figures["verdict"]}
        )
    return result


def _delivered(experiment: Experiment, logits: dict[str, Any]) -> dict[str, Any]:
    """Return the logits of the delivered files by role."""
    seed = experiment.pair.students[experiment.best].seed
    own = {role: key(experiment.name, kind, seed) for role, kind in KINDS.items()}
    return {role: logits[name] for role, name in own.items() if name in logits}


def _teacher(
    recipe: Recipe, teacher: TeacherSource, logits: dict[str, Any], label: Any, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the metrics of the teacher; without test accuracy if it has no logits for test images."""
    names = [member.model for member in recipe.teacher.ensemble] or [recipe.teacher.model]
    result: dict[str, Any] = {"name": " + ".join(names)}
    if "teacher" in logits:
        result |= measured(logits["teacher"], label, classes=classes)
    if "last" in (accuracy := teacher.record.get("validation_accuracy", {})):
        result["validation_accuracy"] = {which: [value] for which, value in accuracy.items()}
    if teacher.network is not None:
        result["parameters"] = zoo.count_parameters(teacher.network)
    return result | {key: teacher.facts[key] for key in ("members", "chain") if key in teacher.facts}


def _description(changes: dict[str, Any]) -> str:
    """Return the description of a comparison from the recipe, or else a list of its changes."""
    settings = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return changes.get("description") or f"The same with {settings}."


def _described(experiment: Experiment, logits: dict[str, Any], label: Any, more_files: list[Path]) -> dict[str, Any]:
    """Return the metrics of one experiment; `files` has bytes and latency of `more_files`."""
    pair, name = experiment.pair, experiment.name

    def logits_of(kind: str, group: list[Trained]) -> list[Any]:
        return [logits[key(name, kind, trained.seed)] for trained in group]

    students, controls = logits_of("student", pair.students), logits_of("control", pair.controls)
    best, delivered = experiment.best, pair.students[experiment.best]
    shown = experiment.exports[best]  # size and latency are those of the files that are delivered
    files = [experiment.control_export.model, shown.model, *([shown.int8] if shown.int8 else []), *more_files]
    file_figures = [
        {"bytes": file.stat().st_size, "latency_ms": round(latency.median_ms, 4), **from_photo(file)}
        for file, latency in zip(files, latency_ms(files), strict=True)
    ]
    counts = {  # a student with its teacher's classifier has more parameters than its control
        kind: zoo.count_parameters(group[0].load())
        for kind, group in (("control", pair.controls), ("student", pair.students))
    }
    facts = {"name": experiment.recipe.student.model, "parameters": counts["student"]}
    models = {
        kind: {
            **facts,
            "parameters": counts[kind],
            **over_seeds(group, label),
            **_validation(trained),
            **file,
        }
        for kind, group, trained, file in (
            ("control", controls, pair.controls, file_figures[0]),
            ("student", students, pair.students, file_figures[1]),
        )
    }
    exported = {"student": _parity(logits[key(name, "onnx", delivered.seed)], students[best])}
    if shown.int8:
        int8 = logits_of("int8", pair.students)
        models["student_int8"] = {**facts, **over_seeds(int8, label), **file_figures[2]}
        exported["student_int8"] = _parity(int8[best], students[best])
    for role, figures in _on_device(experiment, logits, label).items():
        models[role] |= figures
    return {
        "models": models,
        "verdict": summary.verdict(students, controls, label, experiment.recipe.train).to_json(),
        "export": exported,
        "files": file_figures[len(file_figures) - len(more_files) :],
    }


def _on_device(experiment: Experiment, logits: dict[str, Any], label: Any) -> dict[str, dict[str, Any]]:
    """Return what the files of the delivered student need on a device, and what their thresholds do on test images."""
    files, seed = experiment.exports[experiment.best], experiment.pair.students[experiment.best].seed
    result = {}
    for role, kind, file in (("student", "onnx", files.model), ("student_int8", "int8", files.int8)):
        if file is not None:
            model = OnnxModel(file, threads=1)
            checked = rejection.tested(file.name, model, logits[key(experiment.name, kind, seed)], label)
            result[role] = {**model.card.device, **checked}
    return result


def _parity(file: Any, network: Any) -> dict[str, Any]:
    return {**parity(file, network), "images": len(network)}


def _validation(group: list[Trained]) -> dict[str, Any]:
    recorded = [trained.record["validation_accuracy"] for trained in group]
    return {"validation_accuracy": {which: [one[which] for one in recorded] for which in ("last", "best", "kept")}}

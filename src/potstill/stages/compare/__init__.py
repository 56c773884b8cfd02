"""`compare`: methods x students x seeds on equal terms. Every choice on validation, the test split opened once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill.evaluation.measured import measured
from potstill.models import zoo
from potstill.report import write_comparison
from potstill.stages import dataset, test_split
from potstill.stages.compare import figures
from potstill.stages.compare.cells import Cells, Row, setup_of
from potstill.stages.compare.settings import Cell, CompareConfig, plan
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.chain import Lessons, prepare_with_chain
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size
from potstill.stages.teacher.prepare import teacher_size
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.training.predict import Model
from potstill.words import plural

__all__ = ["CompareConfig", "compare"]


def compare(config: CompareConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Carry a comparison through in `folder`, going on where an earlier call stopped; return its summary.

    Trains the teacher where it has no weights, asks it once about every view, trains every cell, opens the test
    split once for all of them and writes summary.json (docs/summary.md). Raises `ConfigError` before any work where
    the recipe is wrong, `RunError` where the folder holds something else.
    """
    candidates = plan(config)
    return stage(
        "compare",
        config,
        folder,
        lambda journal: _carry_out(config, candidates, folder, journal),
        name=config.name,
        command=command,
        report=write_comparison,
    )


def _carry_out(
    config: CompareConfig, candidates: dict[tuple[str, str], list[Cell]], folder: Path, journal: Journal
) -> dict[str, Any]:
    data = journal.timed("data", "Read and split the images", lambda: _data(config))
    lessons = _lessons(config, next(iter(candidates.values()))[0])
    teacher = journal.timed("teacher", "", lambda: prepare_with_chain(config.teacher, lessons, data, folder))
    journal.stages[-1]["title"] = teacher.title
    views = config.training_views
    teacher = teacher.bind(
        data, Replay(views, config.train.epochs, config.seeds, folder / "stores", stored=config.teacher.stored)
    )
    cells = Cells(config, data, teacher, folder)
    cells.check(candidates)
    if config.teacher.stored:
        text = f"Cached teacher outputs for {plural(config.view_count, 'view')} of every image, for all students"
        journal.timed("label", text, teacher.function)
    rows = journal.timed("cells", _title(config), lambda: cells.run(candidates))
    logits = journal.timed("evaluation", "Opened the test split, once", lambda: _open_test(rows, teacher, data, folder))
    result = _summary(config, rows, teacher, data, logits)
    return result | {"notes": figures.notes(result["students"], result["models"]["teacher"].get("accuracy"))}


def _lessons(config: CompareConfig, first: Cell) -> Lessons:
    """Return how the links between teacher and students are trained: like the first control."""
    return Lessons(setup_of(config, first), first.objective.loss_terms, config.seed, config.seeds, config.data.seed)


def _title(config: CompareConfig) -> str:
    cells = len(config.students) * (1 + len(config.methods)) * config.seeds
    trials = cells // config.seeds * config.trials if config.trials > 1 else 0
    return f"Trained {plural(cells, 'student')}" + (f", after {plural(trials, 'trial')}" if trials else "")


def _data(config: CompareConfig) -> Data:
    sizes = [input_size.own_size(student.model) for student in config.students.values()]
    return dataset.prepare(config.data, at_least=max(teacher_size(config.teacher), *sizes))


def _open_test(rows: list[Row], teacher: TeacherSource, data: Data, folder: Path) -> dict[str, np.ndarray]:
    models: dict[str, Model] = {} if teacher.model is None else {"teacher": teacher.model}
    identities = {"teacher": teacher.identity}
    for row in rows:
        for trained in row.trained:
            model = trained.load()
            models[figures.key(row, trained.seed)] = model
            identities[figures.key(row, trained.seed)] = model.card.weights_sha256
    logits = test_split.open_test(models, identities, data, folder / "evaluation")
    known = teacher.logits(data, data.manifest.rows("test", labelled=True)) if teacher.model is None else None
    return logits if known is None else logits | {"teacher": known}


def _summary(
    config: CompareConfig, rows: list[Row], teacher: TeacherSource, data: Data, logits: dict[str, np.ndarray]
) -> dict[str, Any]:
    manifest = data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    facts: dict[str, Any] = {"name": _name(config), "seconds": teacher.record.get("seconds", 0.0)}
    if "teacher" in logits:
        facts |= measured(logits["teacher"], label, classes=manifest.classes)
    if teacher.network is not None:
        facts["parameters"] = zoo.count_parameters(teacher.network)
    result: dict[str, Any] = {"data": data.facts(config.data.path), "models": {"teacher": facts}}
    result["budget"] = {
        "epochs": config.train.epochs,
        "batch_size": config.train.batch_size,
        "steps": rows[0].trained[0].record["steps"],
        "views": config.view_count,
        "trials": config.trials,
        "seeds": config.seeds,
        "select": config.train.select,
    }
    result["students"] = {}
    for name in config.students:
        own = [row for row in rows if row.student == name]
        parameters = zoo.count_parameters(train.new_student(own[0].cell.student, data, config.seed))
        result["students"][name] = figures.student_figures(own, logits, label, parameters)
    return result


def _name(config: CompareConfig) -> str:
    """Return what the teacher is called: its model, or the models of an ensemble."""
    return " + ".join(member.model for member in config.teacher.ensemble) or config.teacher.model

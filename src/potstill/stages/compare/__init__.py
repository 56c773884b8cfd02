"""`compare`: methods x students x seeds on equal budgets; all choices on validation, the test split evaluated once."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import build
from potstill.data.loader import images_per_step
from potstill.evaluation.measured import measured
from potstill.models import zoo
from potstill.progress import parts
from potstill.report.exports import write_tables
from potstill.scheduling import Scheduler
from potstill.stages import dataset, test_split
from potstill.stages.compare import figures
from potstill.stages.compare.cells import Cells, Plan, Row, setup_of
from potstill.stages.compare.settings import Cell, CompareConfig, plan
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.chain import LinkTraining, prepare_with_chain
from potstill.stages.run_folder import Journal
from potstill.stages.side_by_side import SideBySide, side_by_side
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size
from potstill.stages.teacher.prepare import teacher_size
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.training.predict import Model
from potstill.words import plural

__all__ = ["CompareConfig", "compare"]


def compare(
    config: CompareConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Run a comparison in `folder`, resuming an interrupted call; return its summary.

    Trains the teacher if it has no weights, caches its logits for every view, trains every cell, evaluates the test
    split once for all of them and writes summary.json (docs/summary.md). Raises `ConfigError` before any work if the
    recipe is wrong, `RunError` if the folder has other contents. scheduler: carries out the cells, by default this
    process.
    """
    candidates = plan(config)
    side = side_by_side(scheduler, _replay, json.dumps(config.to_json()), folder)
    return stage(
        "compare",
        config,
        folder,
        lambda journal: _carry_out(config, candidates, folder, side, journal),
        name=config.name,
        command=command,
        tables=write_tables,
    )


def _replay(settings: str, folder: Path, side: SideBySide) -> None:
    """Carry out what `side` wants of the cells of a comparison whose teacher is prepared."""
    cells, candidates = _prepared(settings, folder)
    cells.run(candidates, side)


@functools.lru_cache(maxsize=1)
def _prepared(settings: str, folder: Path) -> tuple[Cells, Plan]:
    config = build(CompareConfig, json.loads(settings))
    candidates, data = plan(config), _data(config)
    return Cells(config, data, _bound(config, candidates, data, folder), folder), candidates


def _bound(config: CompareConfig, candidates: Plan, data: Data, folder: Path) -> TeacherSource:
    """Return the teacher for the training images, trained unless it exists."""
    links = _links(config, next(iter(candidates.values()))[0])
    teacher = prepare_with_chain(config.teacher, links, data, folder)
    replay = Replay(
        config.training_views, config.train.epochs, config.seeds, folder / "stores", stored=config.teacher.stored
    )
    return teacher.bind(data, replay)


def _carry_out(
    config: CompareConfig, candidates: Plan, folder: Path, side: SideBySide, journal: Journal
) -> dict[str, Any]:
    parts.announce("data", "teacher", *(["label"] if config.teacher.stored else []), ("cells", 1.0), "evaluation")
    data = journal.timed("data", "Read and split the images", lambda: _data(config))
    teacher = journal.timed("teacher", "", lambda: _bound(config, candidates, data, folder))
    journal.stages[-1]["title"] = teacher.title
    cells = Cells(config, data, teacher, folder)
    cells.check(candidates)
    if config.teacher.stored:
        text = f"Cached the teacher's logits for {plural(config.view_count, 'view')} of every image"
        journal.timed("label", text, teacher.function)
    rows = journal.timed("cells", _title(config), lambda: cells.run(candidates, side))
    logits = journal.timed(
        "evaluation", "Evaluated the test split once", lambda: _open_test(rows, teacher, data, folder)
    )
    result = _summary(config, rows, teacher, data, logits)
    return result | {"notes": figures.notes(result["students"], result["models"]["teacher"].get("accuracy"))}


def _links(config: CompareConfig, first: Cell) -> LinkTraining:
    """Return how the links between teacher and students are trained: like the first control."""
    return LinkTraining(
        setup_of(config, first), first.objective.loss_terms, config.seed, config.seeds, config.data.seed
    )


def _title(config: CompareConfig) -> str:
    cells = len(config.students) * (1 + len(config.methods)) * config.seeds
    trials = cells // config.seeds * config.trials if config.trials > 1 else 0
    return f"Trained {plural(cells, 'student')}" + (f", after {plural(trials, 'trial')}" if trials else "")


def _data(config: CompareConfig) -> Data:
    sizes = [input_size.of_student(student) for student in config.students.values()]
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
    stored = teacher.logits(data, data.manifest.rows("test", labelled=True)) if teacher.model is None else None
    return logits if stored is None else logits | {"teacher": stored}


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
        "batch_size": images_per_step(config.train.batch_size, len(manifest.rows("train"))),
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
    """Return the name of the teacher: its model, or the models of an ensemble."""
    return " + ".join(member.model for member in config.teacher.ensemble) or config.teacher.model

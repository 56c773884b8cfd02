"""`compare`: methods x students x seeds on equal terms. Every choice on validation, the test split opened once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill.evaluation.measured import measured
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.report import write_comparison
from potstill.stages import dataset, test_split
from potstill.stages.compare import figures
from potstill.stages.compare.cells import Row, check_all, run_cells
from potstill.stages.compare.settings import CompareConfig, plan
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.chain import prepare_with_chain
from potstill.stages.distill.train import Teaching
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size
from potstill.stages.teacher.prepared import Taught
from potstill.training.predict import Model

__all__ = ["CompareConfig", "compare"]


def compare(config: CompareConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Carry a comparison through in `folder`, going on where an earlier call stopped; return its summary.

    Trains the teacher where it has no weights, asks it once about every view, trains every cell, opens the test
    split once for all of them and writes summary.json (docs/summary.md). Raises `ConfigError` before any work where
    the recipe is wrong, `RunError` where the folder holds something else.
    """
    cells = plan(config)
    return stage(
        "compare",
        config,
        folder,
        lambda journal: _carry_out(config, cells, folder, journal),
        name=config.name,
        command=command,
        report=write_comparison,
    )


def _carry_out(
    config: CompareConfig, cells: dict[tuple[str, str], list[Recipe]], folder: Path, journal: Journal
) -> dict[str, Any]:
    first = next(iter(cells.values()))[0]
    data = journal.timed("data", "Read and split the images", lambda: _data(config))
    taught = journal.timed("teacher", "", lambda: prepare_with_chain(first, data, folder))
    journal.stages[-1]["title"] = taught.title
    teaching = Teaching(first, taught, data, folder / "stores")
    check_all(cells, data, teaching)
    if config.teacher.stored:
        text = f"Asked the teacher about {config.view_count} views of every image, once for all students"
        journal.timed("label", text, teaching.function)
    rows = journal.timed("cells", _title(config), lambda: run_cells(config, cells, data, teaching, folder))
    logits = journal.timed("evaluation", "Opened the test split, once", lambda: _open_test(rows, taught, data, folder))
    result = _summary(config, rows, taught, data, logits)
    return result | {"notes": figures.notes(result["students"], result["models"]["teacher"].get("accuracy"))}


def _title(config: CompareConfig) -> str:
    cells = len(config.students) * (1 + len(config.methods)) * config.seeds
    trials = cells // config.seeds * config.trials if config.trials > 1 else 0
    return f"Trained {cells} students" + (f", after {trials} trials" if trials else "")


def _data(config: CompareConfig) -> Data:
    sizes = [input_size.own_size(student.model) for student in config.students.values()]
    return dataset.prepare(config.data, at_least=max(input_size.size_of(config.teacher), *sizes))


def _open_test(rows: list[Row], taught: Taught, data: Data, folder: Path) -> dict[str, np.ndarray]:
    models: dict[str, Model] = {} if taught.model is None else {"teacher": taught.model}
    identities = {"teacher": taught.identity}
    for row in rows:
        for trained in row.trained:
            model = trained.load()
            models[figures.key(row, trained.seed)] = model
            identities[figures.key(row, trained.seed)] = model.card.weights_sha256
    logits = test_split.open_test(models, identities, data, folder / "evaluation")
    given = taught.said(data, data.manifest.rows("test", labelled=True)) if taught.given is not None else None
    return logits if given is None else logits | {"teacher": given}


def _summary(
    config: CompareConfig, rows: list[Row], taught: Taught, data: Data, logits: dict[str, np.ndarray]
) -> dict[str, Any]:
    manifest = data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    teacher: dict[str, Any] = {"name": _name(config), "seconds": taught.record.get("seconds", 0.0)}
    if "teacher" in logits:
        teacher |= measured(logits["teacher"], label, classes=manifest.classes)
    if isinstance(taught.model, Classifier):
        teacher["parameters"] = zoo.count_parameters(taught.model)
    result: dict[str, Any] = {"data": data.facts(config.data.path), "models": {"teacher": teacher}}
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
        parameters = zoo.count_parameters(_untrained(own[0].recipe, data))
        result["students"][name] = figures.student_figures(own, logits, label, parameters)
    return result


def _name(config: CompareConfig) -> str:
    """Return what the teacher is called: its model, or the models of an ensemble."""
    return " + ".join(member.model for member in config.teacher.ensemble) or config.teacher.model


def _untrained(recipe: Recipe, data: Data) -> Classifier:
    return train.new_student(recipe, data, recipe.seed)

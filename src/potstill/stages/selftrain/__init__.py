"""Self-training: teachers label unlabelled images (the pool), students are trained on them, validation decides.

Steps of a run: deduplicate the pool, train or load teachers (one model per fold), calibrate their soft labels, train
students with and without the pool on equal budgets, repeat for some rounds with the students as the teacher, choose on
validation, and evaluate the test split once.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from potstill import artifacts, distributed, progress
from potstill.config import build
from potstill.data import duplicates
from potstill.data.duplicates import Deduplicated
from potstill.errors import ConfigError, DataError
from potstill.progress import parts
from potstill.scheduling import Scheduler
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import TeacherConfig
from potstill.stages.run_folder import Journal
from potstill.stages.selftrain import corrections, test_table, unlabelled
from potstill.stages.selftrain.choice import Choice, choose
from potstill.stages.selftrain.crossfit import crossfit
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, probabilities
from potstill.stages.selftrain.review import write_review
from potstill.stages.selftrain.rounds import WITH_POOL, Rounds
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.teachers import prepare_teachers
from potstill.stages.side_by_side import Only, SideBySide, side_by_side
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size
from potstill.words import plural

__all__ = ["SelftrainConfig", "selftrain"]

TEACHERS = "teachers"  # folder of the teachers that are trained here


def selftrain(
    config: SelftrainConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Run a self-training in `folder`, resuming an interrupted call; return its summary.

    The folder then has the kept model (`student.json` names its stage), summary.json, labels.csv, to-review.csv and
    labels.html. scheduler: carries out the trainings, by default this process. Raises `DataError` if the pool is
    missing, empty, unreadable or has no new images.
    """
    side = side_by_side(scheduler, _replay, json.dumps(config.to_json()), folder)
    return stage(
        "selftrain",
        config,
        folder,
        lambda journal: _carry_out(config, folder, side, journal),
        name=config.name,
        command=command,
    )


def _replay(settings: str, folder: Path, side: Only) -> None:
    """Carry out what `side` wants of the trainings of a self-training."""
    config = build(SelftrainConfig, json.loads(settings))
    data, deduplicated = _read_once(settings, folder)
    if side.target.is_relative_to((folder / TEACHERS).absolute()):
        prepare_teachers(config, data, folder / TEACHERS, side)
    else:
        _train(Rounds(config, data, deduplicated.kept, folder, side), _teachers_once(settings, folder))


@functools.lru_cache(maxsize=1)
def _read_once(settings: str, folder: Path) -> tuple[Data, Deduplicated]:
    return _read(build(SelftrainConfig, json.loads(settings)), folder)


@functools.lru_cache(maxsize=1)
def _teachers_once(settings: str, folder: Path) -> list[CalibratedTeacher]:
    config = build(SelftrainConfig, json.loads(settings))
    return prepare_teachers(config, _read_once(settings, folder)[0], folder / TEACHERS)[0]


def _refuse_shared(config: SelftrainConfig) -> None:
    """Raise `ConfigError` for what several processes cannot do."""
    problems = []
    if config.method != "teachers":
        problems.append(
            f"method {config.method} compares the images of a whole batch, of which each process has a part. Start it "
            "without torchrun, or use method: teachers."
        )
    if any(teacher.weights for teacher in config.teachers):
        problems.append(
            "Teachers with pretrained weights are fitted in one process: start without torchrun, or fit them first "
            "with `potstill finetune` and give that folder."
        )
    if problems:
        raise ConfigError(*problems)


def _carry_out(config: SelftrainConfig, folder: Path, side: SideBySide, journal: Journal) -> dict[str, Any] | None:
    if distributed.world() > 1:
        _refuse_shared(config)
    parts.announce("data", "teacher", "students", "evaluation")
    data, deduplicated = journal.timed(
        "data", "Read the images and deduplicated the pool", lambda: _read(config, folder)
    )
    teachers, label_quality = journal.timed(
        "teacher",
        f"Prepared {plural(len(config.teachers), 'teacher')}",
        lambda: prepare_teachers(config, data, folder / TEACHERS, side),
    )
    rounds = Rounds(config, data, deduplicated.kept, folder, side)
    journal.timed("students", "Labelled the pool and trained with and without it", lambda: _train(rounds, teachers))
    choice = _choose(rounds)
    progress.note(choice.sentence)
    if not distributed.is_main():
        return None
    with distributed.alone():
        return _finish(rounds, teachers, deduplicated, label_quality, choice, journal)


def _finish(
    rounds: Rounds,
    teachers: list[CalibratedTeacher],
    deduplicated: Deduplicated,
    label_quality: dict[str, Any],
    choice: Choice,
    journal: Journal,
) -> dict[str, Any]:
    """Evaluate the test split, write the tables and name the model to keep; return the summary."""
    config, folder = rounds.config, rounds.folder
    measured = journal.timed(
        "evaluation",
        "Evaluated the test split once",
        lambda: test_table.table(rounds, teachers, choice.kept, folder / "evaluation"),
    )
    _write_review(config, rounds, deduplicated, choice, folder)
    _deliver(rounds, choice, folder)
    return _summary(config, rounds, deduplicated, label_quality, choice, measured)


def _read(config: SelftrainConfig, folder: Path) -> tuple[Data, Deduplicated]:
    manifest = unlabelled.read(config)
    if config.corrections is not None:
        manifest = corrections.corrected(manifest, Path(config.corrections))
    if not len(manifest.rows("validation", labelled=True)):
        raise DataError(
            f"{config.data.path} has too few labels for a validation split, which is needed to measure whether the "
            "unlabelled images helped. Label at least two images of a class."
        )
    students = [config.student, *([config.large] if config.large else [])]
    own = max(*(_size_of(t) for t in config.teachers), *(input_size.of_student(student) for student in students))
    file = folder / "pool" / "pool.safetensors"

    def work() -> dict[str, Any]:
        result = duplicates.deduplicate(manifest)
        with artifacts.atomic(file) as temporary:
            temporary.write_bytes(save({"pool": result.pool, "reason": result.reason}))
        return {"left_out": result.counts()}

    artifacts.stage(file.parent, {"data": manifest.fingerprint}, lambda: distributed.by_main(work))
    stored = load_file(file)
    deduplicated = Deduplicated(stored["pool"], stored["reason"])
    progress.note(duplicates.describe(manifest, deduplicated))
    return dataset.prepare(config.data, manifest=manifest, at_least=own), deduplicated


def _size_of(teacher: TeacherConfig) -> int:
    """Return the input size of a teacher in pixels per side, 0 if it accepts any."""
    if teacher.weights and teacher.card and teacher.card.size:
        return max(teacher.card.size)
    return input_size.own_size(teacher.model)


def _train(rounds: Rounds, teachers: list[CalibratedTeacher]) -> None:
    labels = rounds.label_pool(teachers)
    rounds.without_pool(labels)
    if len(labels.rows):
        rounds.with_pool(WITH_POOL, rounds.config.student, labels, method=rounds.config.method_of_student)
        rounds.evidence = crossfit(rounds, labels)
        rounds.iterate()


def _choose(rounds: Rounds) -> Choice:
    rows = [row for row in rounds.rows.values() if row.deliverable]
    without, with_pool = ({r.name: rounds.evidence_of(r) for r in rows if r.pool == pool} for pool in (False, True))
    return choose(without, with_pool, validation=len(rounds.validation))


def _write_review(
    config: SelftrainConfig, rounds: Rounds, deduplicated: Deduplicated, choice: Choice, folder: Path
) -> None:
    """Write the labels of the last generation of teachers as tables and as an HTML page."""
    last = rounds.labels[-1]
    disagreement = last.store.read(rounds.pool, np.zeros_like(rounds.pool))["disagreement"].astype(np.float32)
    write_review(
        folder,
        rounds.data,
        rounds.pool,
        probabilities(last.store, rounds.pool),
        disagreement,
        to_review=config.to_review,
        selection=last.selection,
        deduplicated=deduplicated,
        choice=choice.sentence,
    )


def _deliver(rounds: Rounds, choice: Choice, folder: Path) -> None:
    """Write the folder of the kept row's model with the best validation accuracy into student.json."""
    best = rounds.best(rounds.rows[choice.kept])
    artifacts.write_json(folder / "student.json", {"folder": str(best.folder.relative_to(folder))})


def _summary(
    config: SelftrainConfig,
    rounds: Rounds,
    deduplicated: Deduplicated,
    label_quality: dict[str, Any],
    choice: Choice,
    measured: dict[str, Any],
) -> dict[str, Any]:
    result: dict[str, Any] = {"data": rounds.data.facts(config.data.path)}
    result["data"]["splits"] |= {"labelled": len(rounds.labelled), "pool": len(deduplicated.pool)}
    pool = {"kept": len(deduplicated.kept), "left_out": deduplicated.counts()}
    result["pool"] = {"source": config.data.unlabelled, **pool}
    result["labels"] = {"quality": label_quality, "generations": [labels.record for labels in rounds.labels]}
    result["kept"] = choice.kept
    result["helped"] = choice.helped
    result["choice"] = choice.to_json()
    return result | measured

"""Learning from unlabelled images: teachers label the pool, students learn from it, validation says whether it helped.

The road of one run: the pool without copies of held-out images, teachers by folds, calibrated soft labels, students
with and without the pool on equal budgets, rounds in which the students become the teacher, the choice on validation,
and the test split once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from potstill import artifacts, progress
from potstill.errors import DataError
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import TeacherConfig
from potstill.stages.run_folder import Journal
from potstill.stages.selftrain import corrections, deduplicate, test_table, unlabelled
from potstill.stages.selftrain.choice import Choice, choose
from potstill.stages.selftrain.crossfit import crossfit
from potstill.stages.selftrain.deduplicate import Deduplicated
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, probabilities
from potstill.stages.selftrain.review import write_review
from potstill.stages.selftrain.rounds import WITH_POOL, Rounds
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.teachers import teachers
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size

__all__ = ["SelftrainConfig", "selftrain"]


def selftrain(config: SelftrainConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Carry a self-training through in `folder`, going on where an earlier call stopped; return its summary.

    The folder then holds the kept model (`student.json` names its stage), summary.json, labels.csv,
    worth-labelling.csv and labels.html. Raises `DataError` where the pool is missing, empty, unreadable or not new.
    """
    return stage(
        "selftrain",
        config,
        folder,
        lambda journal: _carry_out(config, folder, journal),
        name=config.name,
        command=command,
    )


def _carry_out(config: SelftrainConfig, folder: Path, journal: Journal) -> dict[str, Any]:
    data, sieved = journal.timed("data", "Read the images and sieved the pool", lambda: _read(config, folder))
    voices, worth = journal.timed(
        "teacher",
        f"Made or took {len(config.teachers)} teacher(s)",
        lambda: teachers(config, data, folder / "teachers"),
    )
    rounds = Rounds(config, data, sieved.kept, folder)
    journal.timed("students", "Labelled the pool and trained with and without it", lambda: _learn(rounds, voices))
    choice = _choose(rounds)
    progress.note(choice.sentence)
    measured = journal.timed(
        "evaluation", "Opened the test split, once",
        lambda: test_table.table(rounds, voices, choice.kept, folder / "evaluation"),
    )  # fmt: skip
    _show(config, rounds, sieved, choice, folder)
    _deliver(rounds, choice, folder)
    return _summary(config, rounds, sieved, worth, choice, measured)


def _read(config: SelftrainConfig, folder: Path) -> tuple[Data, Deduplicated]:
    manifest = unlabelled.read(config)
    if config.corrections is not None:
        manifest = corrections.corrected(manifest, Path(config.corrections))
    if not len(manifest.rows("validation", labelled=True)):
        raise DataError(
            f"{config.data.path} has too few labels to hold any out for validation, and without validation nobody "
            "knows whether the unlabelled images helped. Label two images of a class at least."
        )
    learners = [config.student.model, *([config.large.model] if config.large else [])]
    own = max(*(_size_of(t) for t in config.teachers), *(input_size.own_size(model) for model in learners))
    file = folder / "pool" / "pool.safetensors"

    def work() -> dict[str, Any]:
        found = deduplicate.deduplicate(manifest)
        with artifacts.atomic(file) as temporary:
            temporary.write_bytes(save({"pool": found.pool, "reason": found.reason}))
        return {"left_out": found.counts()}

    artifacts.stage(file.parent, {"data": manifest.fingerprint}, work)
    kept = load_file(file)
    sieved = Deduplicated(kept["pool"], kept["reason"])
    progress.note(deduplicate.describe(manifest, sieved))
    return dataset.prepare(config.data, manifest=manifest, at_least=own), sieved


def _size_of(teacher: TeacherConfig) -> int:
    """Return the pixels a side that a teacher wants, 0 where it takes any."""
    if teacher.weights and teacher.card and teacher.card.size:
        return max(teacher.card.size)
    return input_size.own_size(teacher.model)


def _learn(rounds: Rounds, voices: list[CalibratedTeacher]) -> None:
    labels = rounds.listen(voices)
    rounds.without_pool(labels)
    if len(labels.rows):
        rounds.with_pool(WITH_POOL, rounds.config.student, labels, method=rounds.config.method_of_student)
        rounds.evidence = crossfit(rounds, labels)
        rounds.iterate()


def _choose(rounds: Rounds) -> Choice:
    rows = [row for row in rounds.rows.values() if row.deliverable]
    without, with_pool = ({r.name: rounds.evidence_of(r) for r in rows if r.pool == pool} for pool in (False, True))
    return choose(without, with_pool, validation=len(rounds.validation))


def _show(config: SelftrainConfig, rounds: Rounds, sieved: Deduplicated, choice: Choice, folder: Path) -> None:
    """Write the labels of the last generation of teachers as tables and as a page."""
    last = rounds.labels[-1]
    apart = last.store.read(rounds.pool, np.zeros_like(rounds.pool))["disagreement"].astype(np.float32)
    write_review(
        folder, rounds.data, rounds.pool, probabilities(last.store, rounds.pool), apart, worth=config.worth,
        selection=last.selection, sieved=sieved, choice=choice.sentence,
    )  # fmt: skip


def _deliver(rounds: Rounds, choice: Choice, folder: Path) -> None:
    """Name the stage of the kept row that is best on validation."""
    row = rounds.rows[choice.kept]
    best = row.trained[int(np.argmax(rounds.accuracies(row)))]
    artifacts.write_json(folder / "student.json", {"folder": str(best.folder.relative_to(folder))})


def _summary(
    config: SelftrainConfig, rounds: Rounds, sieved: Deduplicated, worth: dict[str, Any], choice: Choice,
    measured: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    result: dict[str, Any] = {"data": rounds.data.facts(config.data.path)}
    result["data"]["splits"] |= {"labelled": len(rounds.labelled), "pool": len(sieved.pool)}
    result["pool"] = {"source": config.unlabelled, "kept": len(sieved.kept), "left_out": sieved.counts()}
    result["labels"] = {"quality": worth, "generations": [labels.record for labels in rounds.labels]}
    result["kept"] = choice.kept
    result["helped"] = choice.helped
    result["choice"] = choice.to_json()
    return result | measured

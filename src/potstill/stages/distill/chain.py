"""Chains of distillation: teacher assistants between a large network and a small one, and born-again generations.

Teacher assistants (arXiv:1902.03393) bridge a gap in size; born-again networks (arXiv:1805.04770) are distilled into
the same architecture. In both, each network is the teacher of the next. Every link is trained like the student, with
the same images, labels and number of steps, and its cost is part of the summary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.models import zoo
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.train import StudentSetup
from potstill.stages.recipe import StudentConfig, TeacherConfig
from potstill.stages.teacher.network import NetworkTeacher
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.words import plural

SEEDS_APART = 1000  # a generation with the student's seed would be the same network again


@dataclass(frozen=True)
class LinkTraining:
    """How the links of a chain are trained: like the student. seed: the first; students: number of students."""

    setup: StudentSetup
    terms: Sequence[Term]
    seed: int
    students: int
    data_seed: int


def prepare_with_chain(config: TeacherConfig, training: LinkTraining, data: Data, root: Path) -> TeacherSource:
    """Return the teacher at the end of its chain. root: the folder of the run."""
    setup = training.setup
    teacher = prepare_teacher(
        config, data, root / "teacher", views=setup.views, seed=training.seed, balance=setup.train.balance
    )
    return run_chain(config, training, data, teacher, root)


def run_chain(
    config: TeacherConfig, training: LinkTraining, data: Data, teacher: TeacherSource, root: Path
) -> TeacherSource:
    """Return the last link of the chain as the teacher, training links that do not exist yet.

    root: the folder of the run; link 1 is in `root`/chain/1/seed-N.
    """
    first, costs = teacher, []
    for number, student in enumerate(links(config, training.setup.student), 1):
        setup = train.within_views(
            dataclasses.replace(training.setup, student=student),
            teacher,
            data,
            training.terms,
            stored=config.stored,
            seed=training.seed,
        )
        replay = Replay(setup.views, setup.train.epochs, training.students, root / "stores", stored=config.stored)
        teacher, cost = _link(setup, training, data, teacher, replay, root / "chain" / str(number), number)
        costs.append(cost)
    if not costs:
        return teacher
    steps = sum(cost["steps"] for cost in costs)
    progress.note(
        f"Trained {plural(len(costs), 'network')} between teacher and student "
        f"({', '.join(cost['name'] for cost in costs)}): {plural(steps, 'step')} and "
        f"{sum(cost['seconds'] for cost in costs):.0f} s, which the control does not have."
    )
    title = f"{first.title}; distilled through {', '.join(cost['name'] for cost in costs)}"
    return dataclasses.replace(teacher, title=title, facts={**first.facts, "chain": costs})


def links(config: TeacherConfig, student: StudentConfig) -> list[StudentConfig]:
    """Return the networks of the chain: the assistants, then the student's own network for each generation."""
    settings = {"labels": student.labels, "labelled_share": student.labelled_share}
    assistants = [StudentConfig(**assistant.to_json(), **settings) for assistant in config.assistants]
    return [*assistants, *[student] * config.generations]


def _link(
    setup: StudentSetup,
    training: LinkTraining,
    data: Data,
    teacher: TeacherSource,
    replay: Replay,
    folder: Path,
    number: int,
) -> tuple[NetworkTeacher, dict[str, Any]]:
    data = train.with_labels_of(setup.student, data, seed=training.data_seed)
    teacher = teacher.bind(data, replay)
    train.check_terms(setup, data, training.terms, teacher, training.seed)
    trained = train.train_one(setup, data, training.terms, teacher, folder, training.seed + SEEDS_APART * number)
    model = trained.load()
    cost = {
        "name": setup.student.model,
        "parameters": zoo.count_parameters(model),
        "steps": trained.record["steps"],
        "seconds": trained.record["seconds"],
        "validation_accuracy": trained.accuracy,
    }
    identity = model.card.weights_sha256
    return NetworkTeacher(model=model, card=model.card, identity=identity, record=trained.record), cost

"""Teachers of teachers: assistants between a large network and a small one, and born-again generations.

Teacher assistants (arXiv:1902.03393) bridge a gap in size; born-again networks (arXiv:1805.04770) teach their like.
Both are the same stage again and again: whoever was taught last teaches next. Every link is trained like the student,
over the same images, labels and number of steps, and what it cost is told beside the result.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.models import zoo
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.recipe import Recipe, StudentConfig
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Taught


def prepare_with_chain(recipe: Recipe, data: Data, folder: Path) -> Taught:
    """Return the recipe's teacher at the end of its chain. folder: of the run."""
    return run_chain(recipe, data, prepare_teacher(recipe, data, folder / "teacher"), folder)


def run_chain(recipe: Recipe, data: Data, taught: Taught, root: Path) -> Taught:
    """Return the last link of the recipe's chain as the teacher, training those that are not there yet.

    root: the run's folder; link 1 lies in `root`/chain/1/seed-N.
    """
    first, told = taught, []
    for number, student in enumerate(links(recipe), 1):
        taught, cost = _link(recipe, student, data, taught, root, number)
        told.append(cost)
    if not told:
        return taught
    steps = sum(cost["steps"] for cost in told)
    progress.note(
        f"Between the teacher and the student {len(told)} more were trained ({', '.join(c['name'] for c in told)}): "
        f"{steps:,} steps and {sum(cost['seconds'] for cost in told):.0f} s that the control did not have."
    )
    name = f"{first.title}; it taught {' and then '.join(cost['name'] for cost in told)}"
    return dataclasses.replace(taught, title=name, facts={**first.facts, "chain": told})


def links(recipe: Recipe) -> list[StudentConfig]:
    """Return who is taught before the student: the assistants, then the student's own network for each generation."""
    settings = {"labels": recipe.student.labels, "labelled_share": recipe.student.labelled_share}
    assistants = [StudentConfig(**assistant.to_json(), **settings) for assistant in recipe.teacher.assistants]
    return [*assistants, *[recipe.student] * recipe.teacher.generations]


def _link(
    recipe: Recipe, student: StudentConfig, data: Data, taught: Taught, root: Path, number: int
) -> tuple[Taught, dict[str, Any]]:
    step = train.in_stored_views(recipe.model_copy(update={"student": student}), taught)
    data = train.with_labels_of(step, data)
    teaching = train.Teaching(step, taught, data, root / "stores")
    terms = train.terms_of(step)
    train.check_terms(step, data, terms, teaching)
    # A generation of its own seed: the student's would be the same network again.
    seed = recipe.seed + 1000 * number
    trained = train.train_one(step, data, terms, teaching, root / "chain" / str(number), seed)
    teaching.assert_unchanged()
    model = trained.load()
    cost = {
        "name": student.model,
        "parameters": zoo.count_parameters(model),
        "steps": trained.record["steps"],
        "seconds": trained.record["seconds"],
        "validation_accuracy": trained.record["validation_accuracy"].get("last"),
    }
    return Taught(model, model.card, model.card.weights_sha256, "", trained.record, trained.folder), cost

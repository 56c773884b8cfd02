"""What a run ships: the student of the best seed on validation, as the file that the one rule recommends."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts
from potstill.data.manifest import Manifest
from potstill.evaluation.measured import compared
from potstill.evaluation.shipping import Candidate, recommended
from potstill.model_files.onnx import OnnxModel
from potstill.stages.distill.files import Exported
from potstill.stages.examples import TEMPERATURES, Reference
from potstill.stages.recipe import Recipe
from potstill.stages.shipped import Delivered, Gain, shipped
from potstill.stages.training import Trained
from potstill.words import plural

FILES = {"student": "student.onnx", "student_int8": "student_int8.onnx"}
"""The file of a role in the folder of the run."""


def best_seed(students: Sequence[Trained]) -> int:
    """Return the index of the student with the best validation accuracy, whose files are copied to the run folder."""
    accuracy = [trained.accuracy for trained in students]
    return accuracy.index(max(accuracy))


def deliver(student: Trained, files: Exported, folder: Path) -> list[Path]:
    """Copy the files of a student to the run folder; return the copies."""
    copies = []
    for source, name in ((files.model, FILES["student"]), (files.int8, FILES["student_int8"])):
        if source is not None:
            copies.append(folder / name)
            with artifacts.atomic(folder / name) as temporary:
                shutil.copyfile(source, temporary)
    reject = OnnxModel(files.model, threads=1).card.reject
    where = {"folder": f"distill/seed-{student.seed}"}
    artifacts.write_json(folder / "student.json", where | ({"reject": reject} if reject else {}))
    return copies


def ship(
    models: Mapping[str, Any],
    logits: Mapping[str, np.ndarray],
    manifest: Manifest,
    students: Sequence[Trained],
    teacher: np.ndarray | None,
    recipe: Recipe,
    folder: Path,
) -> dict[str, Any]:
    """Return `ship` and the figures behind it; write examples.json.

    logits: [N, K] of the delivered files by role; models: their figures. teacher: its logits.
    """
    whole, goal = logits["student"], recipe.goal.goal
    label = manifest.label[manifest.rows("test", labelled=True)]
    files = [
        Candidate(
            FILES[role],
            models[role]["bytes"],
            models[role]["latency_ms"],
            **{key: value for key, value in compared(one, label, whole).items() if key in ("lost", "p")},
        )
        for role, one in logits.items()
    ]
    limited = goal.max_bytes is not None and goal.max_latency is None
    found = recommended(files, "bytes" if limited else "speed", goal)
    role = next(role for role, file in FILES.items() if file == found["file"])
    why = f"the best of {plural(len(students), 'seed')} on validation" if len(students) > 1 else ""
    one = Delivered(
        role,
        found["file"],
        logits[role],
        models[role]["bytes"],
        models[role]["latency_ms"],
        students[best_seed(students)].seed,
        why,
        found["because"] if len(files) > 1 else "",
        found["others"],
        card=students[best_seed(students)].load().card,
    )
    bits = [Gain("8 bits, against the float file", whole, logits["student_int8"])] if "student_int8" in logits else []
    reference = None if teacher is None else Reference("teacher", teacher)
    temperatures = sorted({*TEMPERATURES, recipe.objective.temperature})
    return shipped(one, manifest, folder, reference, goal=goal, gains=bits, temperatures=temperatures)

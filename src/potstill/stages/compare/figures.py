"""The figures of a comparison, from the answers of all its models over the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from potstill.evaluation.measured import over_seeds
from potstill.evaluation.metrics import agreement
from potstill.evaluation.statistics import BEATS, LOSES, TIES, compare, holm, p_value
from potstill.stages import summary
from potstill.stages.compare.cells import Row
from potstill.stages.compare.settings import CONTROL
from potstill.stages.distill.findings import findings

LEVEL = 0.05  # the chance that any method of a student is called wrongly, after Holm's correction


def key(row: Row, seed: int) -> str:
    """Return the name of a cell's answers in the evaluation file."""
    return f"{row.student}/{row.method}/seed-{seed}"


def student_figures(
    rows: list[Row], logits: dict[str, np.ndarray], label: np.ndarray, parameters: int
) -> dict[str, Any]:  # fmt: skip
    """Return everything of one student: a row for the control and one for each method, verdicts corrected."""
    answers = {row.method: [logits[key(row, trained.seed)] for trained in row.trained] for row in rows}
    right = {method: summary.correct(said, label) for method, said in answers.items()}
    methods = [row.method for row in rows if row.method != CONTROL]
    p_values = np.array([p_value(right[method], right[CONTROL]) for method in methods])
    corrected = dict(zip(methods, zip(p_values.tolist(), holm(p_values).tolist(), strict=True), strict=True))
    described = []
    for row in rows:
        told = _row(row, answers[row.method], logits.get("teacher"), label, parameters)
        if row.method != CONTROL:
            names = f"the student taught by {row.method}", "the control"
            verdict = compare(right[row.method], right[CONTROL], names=names)
            told["verdict"] = verdict.to_json()
            told["p"], told["p_holm"] = (round(value, 5) for value in corrected[row.method])
            told["corrected"] = _corrected(verdict.result, told["p_holm"])
        described.append(told)
    first = rows[0].cell.student
    return {"model": first.model, "options": first.options, "parameters": parameters, "methods": described}


def _corrected(result: str, p: float) -> str:
    return result if p < LEVEL and result in (BEATS, LOSES) else TIES


def _row(
    row: Row, answers: list[np.ndarray], teacher: np.ndarray | None, label: np.ndarray, parameters: int
) -> dict[str, Any]:  # fmt: skip
    records = [trained.record for trained in row.trained]
    deployed, training_only = (records[0][name] for name in ("parameters", "extra_parameters"))
    return {
        "method": row.method,
        "seeds": [trained.seed for trained in row.trained],
        **over_seeds(answers, label),
        "validation_accuracy": {
            which: [round(record["validation_accuracy"][which], 3) for record in records] for which in ("last", "best")
        },
        "kept_epoch": [record["kept_epoch"] for record in records],
        "seconds": [record["seconds"] for record in records],
        "steps": records[0]["steps"],
        "extra_parameters": {"deployed": deployed - parameters, "training": training_only},
        "agreement": None if teacher is None else round(float(np.mean([agreement(teacher, s) for s in answers])), 2),
        "objective": None if row.method == CONTROL else row.cell.objective.to_json(),
        "train": row.cell.train.to_json(),
        "trials": row.trials,
    }


def notes(students: dict[str, Any], teacher: float | None) -> list[str]:
    """Return what a reader should know: where teaching did harm, or the teacher had nothing to teach."""
    found = []
    for name, student in students.items():
        control, *methods = student["methods"]
        for told in methods:
            verdict = {"result": told["corrected"]}
            who = f"{name} by {told['method']}"
            found += findings(teacher, told["test_accuracy"], control["test_accuracy"], verdict, name=who)
    return list(dict.fromkeys(found))

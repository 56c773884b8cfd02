"""The metrics of a comparison, from the test logits of all its models."""

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

LEVEL = 0.05  # family-wise error rate over the methods of a student, after Holm's correction


def key(row: Row, seed: int) -> str:
    """Return the name of a cell's logits in the evaluation file."""
    return f"{row.student}/{row.method}/seed-{seed}"


def student_figures(
    rows: list[Row], logits: dict[str, np.ndarray], label: np.ndarray, parameters: int
) -> dict[str, Any]:
    """Return the metrics of one student: of the control and of each method, with corrected verdicts."""
    by_method = {row.method: [logits[key(row, trained.seed)] for trained in row.trained] for row in rows}
    correct = {method: summary.correct(own, label) for method, own in by_method.items()}
    weight = summary.weights_of(label, rows[0].cell.train)
    methods = [row.method for row in rows if row.method != CONTROL]
    p_values = np.array([p_value(correct[method], correct[CONTROL], weight=weight) for method in methods])
    corrected = dict(zip(methods, zip(p_values.tolist(), holm(p_values).tolist(), strict=True), strict=True))
    described = []
    for row in rows:
        metrics = _row(row, by_method[row.method], logits.get("teacher"), label, parameters)
        if row.method != CONTROL:
            names = f"the student distilled by {row.method}", "the control"
            verdict = compare(correct[row.method], correct[CONTROL], names=names, weight=weight)
            metrics["verdict"] = verdict.to_json()
            metrics["p"], metrics["p_holm"] = (round(value, 5) for value in corrected[row.method])
            metrics["corrected"] = _corrected(verdict.result, metrics["p_holm"])
        described.append(metrics)
    first = rows[0].cell.student
    return {"model": first.model, "options": first.options, "parameters": parameters, "methods": described}


def _corrected(result: str, p: float) -> str:
    return result if p < LEVEL and result in (BEATS, LOSES) else TIES


def _row(
    row: Row, logits: list[np.ndarray], teacher: np.ndarray | None, label: np.ndarray, parameters: int
) -> dict[str, Any]:
    records = [trained.record for trained in row.trained]
    deployed, training_only = (records[0][name] for name in ("parameters", "extra_parameters"))
    return {
        "method": row.method,
        "seeds": [trained.seed for trained in row.trained],
        **over_seeds(logits, label),
        "validation_accuracy": {
            which: [round(record["validation_accuracy"][which], 3) for record in records] for which in ("last", "best")
        },
        "kept_epoch": [record["kept_epoch"] for record in records],
        "seconds": [record["seconds"] for record in records],
        "steps": records[0]["steps"],
        "extra_parameters": {"deployed": deployed - parameters, "training": training_only},
        "agreement": None if teacher is None else round(float(np.mean([agreement(teacher, s) for s in logits])), 2),
        "objective": None if row.method == CONTROL else row.cell.objective.to_json(),
        "train": row.cell.train.to_json(),
        "trials": row.trials,
    }


def notes(students: dict[str, Any], teacher: float | None) -> list[str]:
    """Return notes about methods that reduced accuracy, and about teachers that are worse than a control."""
    sentences = []
    for name, student in students.items():
        control, *methods = student["methods"]
        for method in methods:
            verdict = {"result": method["corrected"]}
            title = f"{name} by {method['method']}"
            sentences += findings(teacher, method["test_accuracy"], control["test_accuracy"], verdict, name=title)
    return list(dict.fromkeys(sentences))

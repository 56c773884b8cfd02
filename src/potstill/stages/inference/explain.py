"""Probabilities of a model and its teacher: for one image at several temperatures, or metrics over a data set.

Distillation transfers the probabilities of the incorrect classes (arXiv:1503.02531). The metrics over a data set are
agreement, divergence, calibration, and the errors of the teacher that the student repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import ConfigError, DataError, ModelError
from potstill.evaluation import metrics
from potstill.evaluation.insight import calibration
from potstill.evaluation.statistics import compare
from potstill.stages.inference.evaluate import split_logits
from potstill.stages.inference.images import pictures
from potstill.stages.inference.predict import logits_of, trained

TEMPERATURES = (1.0, 2.0, 4.0)
CONFUSIONS = 12  # number of listed pairs of classes


def explain(
    model: str,
    image: Path,
    temperatures: Sequence[float] = TEMPERATURES,
    *,
    teacher: str | None = None,
    control: str | None = None,
    weights: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the probability of every class at each temperature, of a model, its teacher and its control.

    temperatures: each above 0. control: a model that was trained without the teacher. The result lists `classes` by
    decreasing probability (of the teacher if there is one) and, by model, a list of probabilities 0..1 in that order
    for each temperature.
    """
    if not image.is_file():
        raise DataError(f"There is no image at {image}.")
    if any(value <= 0 for value in temperatures):
        raise ConfigError("--temperature must be > 0.")
    models = {"student": trained(model, weights=weights, classes=classes)}
    if teacher is not None:
        models["teacher"] = trained(teacher, weights=teacher_weights, classes=classes, flag="--teacher-weights")
    if control is not None:
        models["control"] = trained(control, weights=None, classes=classes, flag="")
    given = {"student": model, "teacher": teacher, "control": control}
    names = tuple(models["student"].card.classes)
    picture = pictures(image)[0]
    logits = {role: logits_of(one, picture)[0][_order(names, one.card.classes, model)] for role, one in models.items()}
    ranked = np.argsort(-logits.get("teacher", logits["student"]), kind="stable")
    return {
        "image": str(image),
        "models": {role: name for role, name in given.items() if name is not None},
        "temperatures": list(temperatures),
        "classes": [names[k] for k in ranked],
        "probabilities": {
            role: [metrics.softmax(one[None], value)[0][ranked].round(6).tolist() for value in temperatures]
            for role, one in logits.items()
        },
    }


def _order(classes: tuple[str, ...], known: Sequence[str], model: str) -> list[int]:
    """Return the index of each class among the classes of another model."""
    missing = [name for name in classes if name not in known]
    if missing:
        names = ", ".join(missing[:5])
        raise ModelError(f"Only {model} has the classes {names}: give a teacher and a control with the same classes.")
    return [list(known).index(name) for name in classes]


def explain_set(
    model: str,
    data: str,
    teacher: str,
    *,
    control: str | None = None,
    weights: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
) -> dict[str, Any]:
    """Return metrics of a student against its teacher over a split: agreement, KL, calibration, inherited errors.

    control: a model trained without the teacher, to see how much of the agreement is due to distillation.
    """
    results = {
        "teacher": split_logits(teacher, data, weights=teacher_weights, split=split, limit=limit),
        "student": split_logits(model, data, weights=weights, split=split, limit=limit),
    }
    if control is not None:
        results["control"] = split_logits(control, data, split=split, limit=limit)
    names = results["student"].classes
    logits = {role: one.logits[:, _order(names, one.classes, model)] for role, one in results.items()}
    return {
        "models": {"student": model, "teacher": teacher, **({"control": control} if control else {})},
        "data": data,
        "split": split,
        **likeness(logits, results["student"].label, names),
    }


def likeness(logits: dict[str, np.ndarray], label: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of `explain_set` for logits [N, K] by model and labels int64 [N]."""
    others = [role for role in logits if role != "teacher"]
    teacher = logits["teacher"]
    return {
        "images": len(label),
        "classes": list(names),
        "accuracy": {role: round(metrics.accuracy(one, label), 3) for role, one in logits.items()},
        "agreement": {role: round(metrics.agreement(teacher, logits[role]), 3) for role in others},
        "divergence": {
            role: {f"{value:g}": round(metrics.divergence(teacher, logits[role], value), 5) for value in TEMPERATURES}
            for role in others
        },
        "calibration": {role: calibration(one, label) for role, one in logits.items()},
        "inherited": _inherited(logits, label, others),
        "confusions": confusions(logits, label, names),
    }


def _inherited(logits: dict[str, np.ndarray], label: np.ndarray, others: list[str]) -> dict[str, dict[str, Any]]:
    """Return the teacher's errors that each model repeats; of a control also the student's difference to it."""
    result = {role: inherited(logits["teacher"], logits[role], label) for role in others}
    if "control" in result and result["control"]["mistakes"]:
        wrong = logits["teacher"].argmax(1) != label
        same = {role: (logits[role].argmax(1) == logits["teacher"].argmax(1))[wrong] for role in others}
        verdict = compare(same["student"], same["control"], trained=False)
        points = {"points": round(verdict.difference, 2), "interval": [round(bound, 2) for bound in verdict.interval]}
        result["control"]["difference"] = points
    return result


def inherited(teacher: np.ndarray, student: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return the teacher's errors that a student repeats: the same wrong class for the same image."""
    target, predicted = teacher.argmax(1), student.argmax(1)
    wrong = target != label
    same = wrong & (predicted == target)
    share = 100 * same.sum() / wrong.sum() if wrong.any() else 0.0
    return {"mistakes": int(wrong.sum()), "repeated": int(same.sum()), "share": round(float(share), 2)}


def confusions(logits: dict[str, np.ndarray], label: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the teacher's most frequent confusions, and their frequency in the other models.

    `repeated` counts the images for which teacher and model predict the same wrong class.
    """
    predicted = {role: one.argmax(1) for role, one in logits.items()}
    counts = metrics.confusion(logits["teacher"], label)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order if counts.flat[place]]
    return [
        {
            "true": names[true],
            "called": names[wrong],
            "count": {role: int(((label == true) & (one == wrong)).sum()) for role, one in predicted.items()},
            "repeated": {
                role: int(((label == true) & (one == wrong) & (predicted["teacher"] == wrong)).sum())
                for role, one in predicted.items()
                if role != "teacher"
            },
        }
        for true, wrong in pairs
    ]

"""What is transferred: a model's whole answer, not only its first place, beside that of its teacher.

For one image, the probabilities of every class at several temperatures: what lies behind the first place is what a
student learns from (arXiv:1503.02531). Over a whole data set, how far the two agree, how well each knows what it
knows, and which mistakes of the teacher the student makes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import ConfigError, DataError, ModelError
from potstill.evaluation import metrics
from potstill.stages.inference.evaluate import Said, ask
from potstill.stages.inference.predict import ask_image, trained

TEMPERATURES = (1.0, 2.0, 4.0)
CONFUSIONS = 12  # pairs of classes that are listed


def explain(
    model: str, image: Path, temperatures: Sequence[float] = TEMPERATURES, *, teacher: str | None = None,
    weights: str | Path | None = None, teacher_weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the probability of every class at each temperature, of a model and, beside it, of its teacher.

    temperatures: each above 0. The result lists `classes` from the likeliest down (to the teacher where there is one,
    at the highest temperature) and, by model, a list of probabilities 0..1 in that order for each temperature.
    """
    if not image.is_file():
        raise DataError(f"There is no image at {image}.")
    if any(value <= 0 for value in temperatures):
        raise ConfigError("A temperature is above 0: 1 shows what the model says, higher ones what lies behind it.")
    asked = {"student": trained(model, weights=weights, classes=classes)}
    if teacher is not None:
        asked["teacher"] = trained(teacher, weights=teacher_weights, classes=classes)
    names = tuple(asked["student"].card.classes)
    logits = {who: ask_image(found, image)[_order(names, found.card.classes, model)] for who, found in asked.items()}
    ranked = np.argsort(-logits.get("teacher", logits["student"]), kind="stable")
    return {
        "image": str(image),
        "models": {"student": model, **({"teacher": teacher} if teacher is not None else {})},
        "temperatures": list(temperatures),
        "classes": [names[k] for k in ranked],
        "probabilities": {
            who: [metrics.softmax(said[None], value)[0][ranked].round(6).tolist() for value in temperatures]
            for who, said in logits.items()
        },
    }


def _order(ours: tuple[str, ...], theirs: Sequence[str], model: str) -> list[int]:
    """Return where each of our classes stands among theirs."""
    missing = [name for name in ours if name not in theirs]
    if missing:
        known = ", ".join(missing[:5])
        raise ModelError(f"Only {model} knows {known}: give a teacher and a control for the same classes.")
    return [list(theirs).index(name) for name in ours]


def explain_set(
    model: str, data: str, teacher: str, *, control: str | None = None, weights: str | Path | None = None,
    teacher_weights: str | Path | None = None, split: str = "test", limit: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return how a student stands to its teacher over a split: agreement, KL, calibration, inherited confusions.

    control: a model that learned without the teacher, to see how much of the likeness is the teacher's doing.
    """
    asked = {
        "teacher": ask(teacher, data, weights=teacher_weights, split=split, limit=limit),
        "student": ask(model, data, weights=weights, split=split, limit=limit),
    }
    if control is not None:
        asked["control"] = ask(control, data, weights=None, split=split, limit=limit)
    names = asked["student"].classes
    logits = {who: said.logits[:, _order(names, said.classes, model)] for who, said in asked.items()}
    return {
        "models": {"student": model, "teacher": teacher, **({"control": control} if control else {})},
        "data": data,
        "split": split,
        **likeness(logits, asked["student"], names),
    }


def likeness(logits: dict[str, np.ndarray], said: Said, names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of `explain_set` for logits [N, K] by model; `said` carries the labels."""
    others = [who for who in logits if who != "teacher"]
    teacher, label = logits["teacher"], said.label
    return {
        "images": len(label),
        "classes": list(names),
        "accuracy": {who: round(metrics.accuracy(one, label), 3) for who, one in logits.items()},
        "agreement": {who: round(metrics.agreement(teacher, logits[who]), 3) for who in others},
        "divergence": {
            who: {f"{value:g}": round(metrics.divergence(teacher, logits[who], value), 5) for value in TEMPERATURES}
            for who in others
        },
        "calibration": {who: calibration(one, label) for who, one in logits.items()},
        "inherited": {who: inherited(teacher, logits[who], label) for who in others},
        "confusions": confusions(logits, label, names),
    }


def calibration(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return the ECE in points and the reliability diagram: per filled bin confidence and accuracy, percent."""
    found = metrics.reliability(logits, label)
    filled = found.count > 0
    return {
        "error": round(found.error, 3),
        "count": found.count[filled].tolist(),
        "confidence": found.confidence[filled].round(2).tolist(),
        "accuracy": found.accuracy[filled].round(2).tolist(),
    }


def inherited(teacher: np.ndarray, student: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return how many of the teacher's mistakes a student repeats: the same wrong class on the same image."""
    theirs, ours = teacher.argmax(1), student.argmax(1)
    wrong = theirs != label
    same = wrong & (ours == theirs)
    share = 100 * same.sum() / wrong.sum() if wrong.any() else 0.0
    return {"mistakes": int(wrong.sum()), "repeated": int(same.sum()), "share": round(float(share), 2)}


def confusions(logits: dict[str, np.ndarray], label: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the teacher's most frequent confusions, and how often the others make each.

    `repeated` counts the images on which the model makes the teacher's very mistake.
    """
    called = {who: one.argmax(1) for who, one in logits.items()}
    counts = metrics.confusion(logits["teacher"], label)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order if counts.flat[place]]
    return [
        {
            "true": names[true],
            "called": names[wrong],
            "count": {who: int(((label == true) & (one == wrong)).sum()) for who, one in called.items()},
            "repeated": {
                who: int(((label == true) & (one == wrong) & (called["teacher"] == wrong)).sum())
                for who, one in called.items()
                if who != "teacher"
            },
        }
        for true, wrong in pairs
    ]

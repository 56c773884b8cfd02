"""`--reject 'precision>=0.99'`: thresholds for "unsure", chosen on validation, checked once on test.

The card of a model holds its threshold and what it was chosen for; every command that changes the model chooses anew.
Where a file has a calibration temperature, the probability that is compared with the threshold is the calibrated one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill import progress
from potstill.errors import DataError
from potstill.evaluation import metrics
from potstill.evaluation.rejection import Answers, answers, choose, required_precision, too_few
from potstill.exporters.onnx_file import with_card
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.open import Opened, temperature_of
from potstill.models.card import Card
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.test_split import clean_logits
from potstill.training.predict import Model

NONE = "none"
"""No threshold, although the model has one."""


def precision_of(setting: str | None, card: Card) -> float | None:
    """Return the precision that a command's setting requires, or else that of the model's card; None without any."""
    if setting == NONE or (setting is None and not card.reject):
        return None
    if setting is not None:
        return required_precision(setting)
    precision = card.reject["precision"]
    progress.note(f"The model answers only with precision>={precision:g}: its threshold is chosen again.")
    return precision


def refuse(precision: float | None, data: Data) -> None:
    """Raise `DataError` where the validation images are too few for a guarantee, before any work."""
    if precision is None:
        return
    rows = data.manifest.rows("validation", labelled=True)
    problem = too_few(len(rows), precision, "labelled validation image")
    if problem is not None:
        raise DataError(f"{problem} Or leave the guarantee out: --reject {NONE} (reject: {NONE} in a recipe)")


def chosen(
    card: Card, logits: np.ndarray, label: np.ndarray, precision: float | None, temperature: float = 1.0
) -> Card:
    """Return the card with the threshold that these validation logits [N, K] allow, or without one.

    Notes where the model is not good enough for any.
    """
    if precision is None:
        return card.replace(reject={})
    confident = _confident(logits, label, temperature)
    made = choose(*confident, precision)
    if made is None:
        most = answers(*confident, 0.0)
        progress.note(
            f"{card.typed} gets no threshold for precision>={precision:g}: too many of its surest answers on "
            f"{most.images:,} validation images are wrong. It answers every image, of which at least "
            f"{100 * most.at_least:.1f} % is right. Require less, or train longer."
        )
        return card.replace(reject={})
    return card.replace(reject={"precision": precision, "threshold": made.threshold, "validation": made.to_json()})


def with_threshold(model: Classifier, data: Data, precision: float | None) -> Classifier:
    """Return the model with the threshold that its validation images allow on its card."""
    if precision is None and not model.card.reject:
        return model
    return model.with_card(chosen(model.card, *_validation(model, data, precision), precision))


def file_with_threshold(file: Path, data: Data, precision: float | None) -> None:
    """Write the threshold into an ONNX file that the validation images allow when the file itself is run."""
    if precision is not None:
        model = OnnxModel(file)
        at = temperature_of(model)
        with_card(file, chosen(model.card, *_validation(model, data, precision), precision, at))


def _validation(model: Model, data: Data, precision: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of the validation images; none where nothing is required."""
    rows = data.manifest.rows("validation", labelled=True)
    rows = rows if precision is not None else rows[:0]
    return clean_logits(model, data, rows), data.manifest.label[rows]


def tested(name: str, model: Opened, logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return `reject` of a model's figures: its threshold checked on the test images; nothing without a threshold."""
    reject = model.card.reject
    if not reject:
        return {}
    made = answers(*_confident(logits, label, temperature_of(model)), reject["threshold"])
    sentence = f"{made.sentence}{_shortfall(made, reject['precision'])}"
    progress.note(f"{name}: {sentence}")
    return {"reject": {"precision": reject["precision"], "validation": reject["validation"], "test": made.to_json(),
                       "sentence": sentence}}  # fmt: skip


def _shortfall(made: Answers, precision: float) -> str:
    """Return what to know where the test images alone do not prove the required precision."""
    if made.at_least >= precision:
        return ""
    if made.right >= precision * made.answered:
        return f" Chosen for precision>={precision:g}, which more test images would be needed to confirm."
    return f" That is below the precision>={precision:g} for which it was chosen on validation images."


def _confident(logits: np.ndarray, label: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest probability of each image, and whether its class is right."""
    return metrics.softmax(logits, temperature).max(1), metrics.correct(logits, label)

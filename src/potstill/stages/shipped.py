"""What a stage ships: the figures of that one file, the model it is compared with, the goal, and the figures behind.

Everything on a report's first screen is of the file that is delivered: not of a mean over seeds, nor of the network
that it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.manifest import Manifest
from potstill.evaluation import metrics
from potstill.evaluation.insight import insight
from potstill.evaluation.label_errors import label_errors
from potstill.evaluation.measured import measured
from potstill.evaluation.shipping import Goal
from potstill.evaluation.statistics import compare
from potstill.models.card import Card
from potstill.stages.examples import TEMPERATURES, Reference, write_examples

KEPT = ("accuracy", "interval", "images", "balanced_accuracy", "worst_recall")


@dataclass(frozen=True)
class Delivered:
    """A delivered file. role: of its model in the summary; file: relative to the folder; logits: [N, K] on test images.

    latency_ms: of one image on one thread, None where it was not measured. seed: None where there is only one. why: how
    the model was chosen. because: why this file of several; others: what to know of the others, by name. dominated_by:
    a file that is smaller and faster. card: of the model.
    """

    role: str
    file: str
    logits: np.ndarray
    bytes: int
    latency_ms: float | None = None
    seed: int | None = None
    why: str = ""
    because: str = ""
    others: dict[str, str] | None = None
    dominated_by: str = ""
    card: Card | None = None


@dataclass(frozen=True)
class Gain:
    """A station's change of accuracy: logits [N, K] of one model before and after it, on the same test images."""

    name: str
    before: np.ndarray
    after: np.ndarray


def shipped(
    one: Delivered,
    manifest: Manifest,
    folder: Path,
    reference: Reference | None = None,
    *,
    goal: Goal | None = None,
    gains: Sequence[Gain] = (),
    temperatures: Sequence[float] = TEMPERATURES,
) -> dict[str, Any]:
    """Return `ship`, `insight`, `gains` and `label_errors` of a summary (docs/summary.md); write examples.json.

    temperatures: of the soft labels that are shown.
    """
    write_examples(folder, manifest, one.logits, reference, temperatures)
    label, classes = manifest.label[manifest.rows("test", labelled=True)], manifest.classes
    figures = measured(one.logits, label)
    ship: dict[str, Any] = {
        "file": one.file,
        "role": one.role,
        "bytes": one.bytes,
        "latency_ms": one.latency_ms,
        **{key: figures[key] for key in KEPT},
        "guessing": guessing(label),
        "better_than_guessing": bool(figures["interval"][0] > guessing(label)),
        "seed": one.seed,
        "why": one.why,
        "because": one.because,
        "others": one.others or {},
        "dominated_by": one.dominated_by,
        "reference": None if reference is None else _against(one.logits, label, reference),
    }
    if one.card is not None:
        ship |= {"model": one.card.typed, "weights": one.card.source, "licence": one.card.licence}
    accuracy = None if ship["reference"] is None else ship["reference"]["accuracy"]
    ship["target"] = (goal or Goal()).judged(ship, accuracy)
    judge = one.logits if reference is None else reference.logits
    return {
        "ship": ship,
        "insight": insight(one.logits, label, classes),
        "gains": [{"name": gain.name, **_difference(gain.after, gain.before, label)} for gain in gains],
        "label_errors": {"by": one.role if reference is None else reference.role, **label_errors(judge, label)},
    }


def guessing(label: np.ndarray) -> float:
    """Return the accuracy in percent of always answering the most frequent class of these labels, int64 [N]."""
    return round(100 * float(np.bincount(label).max()) / len(label), 2)


def _against(logits: np.ndarray, label: np.ndarray, reference: Reference) -> dict[str, Any]:
    """Return the accuracy of the reference, and the difference of the file to it in points with its 95 % interval."""
    accuracy = round(metrics.accuracy(reference.logits, label), 3)
    return {"role": reference.role, "accuracy": accuracy, **_difference(logits, reference.logits, label)}


def _difference(after: np.ndarray, before: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    verdict = compare(metrics.correct(after, label), metrics.correct(before, label), trained=False)
    return {
        "difference": round(verdict.difference, 3),
        "interval": [round(bound, 3) for bound in verdict.interval],
        "images": verdict.images,
    }

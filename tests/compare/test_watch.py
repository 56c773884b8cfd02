"""Guard rails: what is told while a student trains and after."""

from __future__ import annotations

import numpy as np
import pytest

from potstill import progress
from potstill.objectives.objective import Term
from potstill.stages.distill.findings import findings
from potstill.stages.watch import Watch

TERMS = [Term(loss="cross_entropy", weight=0.1), Term(loss="kd", weight=9.0)]
TIES, LOSES = {"result": "TIES"}, {"result": "LOSES"}


def test_a_term_that_drowns_another_is_told_once() -> None:
    watch = Watch(TERMS)
    row = {"epoch": 1, "train": {"cross_entropy": 1.0, "kd": 2.0}}  # 0.1 against 18
    watch(row), watch(row)
    notes = progress.display().notes
    assert len(notes) == 1 and "kd" in notes[0] and "180 times cross_entropy" in notes[0]


def test_balanced_terms_and_later_epochs_are_quiet() -> None:
    watch = Watch(TERMS)
    watch({"epoch": 1, "train": {"cross_entropy": 1.0, "kd": 0.5}})
    watch({"epoch": 2, "train": {"cross_entropy": 1e-6, "kd": 50.0}})
    watch({"epoch": 1, "train": {"cross_entropy": 0.0, "kd": 0.5}})
    assert progress.display().notes == []


def test_agreement_stands_beside_the_bar() -> None:
    watch = Watch(TERMS, np.zeros((4, 3)))
    row = {"epoch": 2, "train": {}, "validation": {"accuracy": 50.0, "agreement": 75.0}}
    assert watch(row) == "teacher agreement 75.0 %"
    assert watch({"epoch": 2, "train": {}, "validation": {"accuracy": 50.0}}) == ""


@pytest.mark.parametrize(
    ("teacher", "student", "control", "verdict", "words"),
    [
        (80.0, [85.0], [84.0], TIES, ["less accurate than the control"]),
        (86.0, [87.0, 88.0], [84.0, 85.0], TIES, ["more accurate than its teacher"]),
        (95.0, [80.0], [84.0], LOSES, ["reduced accuracy"]),
        (80.0, [83.0], [84.0], LOSES, ["less accurate than the control", "reduced accuracy"]),
        (95.0, [85.0], [84.0], TIES, []),
        (None, [85.0], [84.0], TIES, []),
    ],
)
def test_findings(teacher, student, control, verdict, words) -> None:
    found = findings(teacher, student, control, verdict)
    assert len(found) == len(words)
    for sentence, part in zip(found, words, strict=True):
        assert part in sentence

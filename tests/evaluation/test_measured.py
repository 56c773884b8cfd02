"""The one vocabulary of figures: each by an independent computation, and the same keys whatever the stage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, t

from potstill.evaluation.measured import compared, measured, over_seeds, parity
from potstill.stages.summary import Figures

LABEL = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def logits(*wrong: int, sure: float = 4.0) -> np.ndarray:
    """Logits [10, 3] of a model that is right but for the images `wrong`, where it takes the next class."""
    predicted = LABEL.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 3
    return sure * np.eye(3, dtype=np.float32)[predicted]


def test_figures_of_one_model() -> None:
    figures = measured(logits(1, 2), LABEL, classes=("a", "b", "c"))
    assert figures["accuracy"] == 80 and figures["images"] == 10
    wilson = binomtest(8, 10).proportion_ci(0.95, method="wilson")
    assert figures["interval"] == [
        pytest.approx(100 * wilson.low, abs=0.01),
        pytest.approx(100 * wilson.high, abs=0.01),
    ]
    right, wrong = np.log(1 + 2 * np.exp(-4)), np.log(1 + 2 * np.exp(-4)) + 4
    assert figures["loss"] == pytest.approx(0.8 * right + 0.2 * wrong, abs=1e-4)
    confidence = 100 / (1 + 2 * np.exp(-4))
    assert figures["calibration_error"] == pytest.approx(confidence - 80, abs=0.01)
    assert figures["recall"] == {"a": 100, "b": pytest.approx(66.67), "c": pytest.approx(66.67)}


def test_a_class_without_images_has_no_recall() -> None:
    assert measured(logits()[:2], LABEL[:2], classes=("a", "b", "c"))["recall"] == {"a": 100, "b": 100}


def test_against_the_model_it_was_made_from() -> None:
    before, after = logits(1), logits(1, 2, 4, sure=3.5)
    figures = compared(after, LABEL, before)
    assert figures["lost"] == 20 and figures["agreement"] == 80
    assert figures["max_logit_difference"] == 4
    assert figures["p"] == pytest.approx(binomtest(2, 2, 0.5).pvalue)
    assert compared(before, LABEL, after)["lost"] == -20, "a gain is a negative loss"
    assert parity(before, before) == {"agreement": 100, "max_logit_difference": 0}


def test_over_seeds_the_interval_is_that_of_the_seeds() -> None:
    figures = over_seeds([logits(), logits(1), logits(1, 2)], LABEL)
    assert figures["test_accuracy"] == [100, 90, 80] and figures["accuracy"] == 90
    half = t.ppf(0.975, 2) * 10 / np.sqrt(3)
    assert figures["interval"] == [pytest.approx(90 - half, abs=0.01), 100]  # cut off: 90 + half is more
    one = over_seeds([logits(1)], LABEL)
    assert one["interval"] == measured(logits(1), LABEL)["interval"] and one["test_accuracy"] == [90]


def test_every_key_is_in_the_schema() -> None:
    keys = {*measured(logits(1), LABEL, classes="abc", reference=logits()), *over_seeds([logits()], LABEL)}
    assert keys <= set(Figures.model_fields)

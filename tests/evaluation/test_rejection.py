"""Thresholds for "unsure": exact bounds, and a guarantee that holds in simulation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import binom

from potstill.evaluation.rejection import answers, choose, lower_bound, needed, required_precision, too_few


def test_requirements_are_read() -> None:
    assert required_precision("precision>=0.99") == 0.99
    assert required_precision(" precision >= 98.5 % ") == pytest.approx(0.985)
    for text, sentence in {
        "recall>=0.9": "not a requirement", "precision>0.9": "not a requirement", "precision>=1": "below 1",
        "precision>=99": "below 1", "precision>=0": "above 0",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(sentence)):
            required_precision(text)


def test_the_bound_is_exact() -> None:
    assert lower_bound(299, 299) == pytest.approx(0.05 ** (1 / 299))
    assert lower_bound(0, 10) == 0.0
    low = lower_bound(780, 800)
    assert binom.sf(779, 800, low) == pytest.approx(0.05, abs=1e-9)  # so many right have 5 % chance at the bound


def test_the_number_of_images_needed() -> None:
    assert (needed(0.99), needed(0.95), needed(0.9)) == (299, 59, 29)
    assert (needed(0.99, wrong=1), needed(0.99, wrong=2)) == (473, 628)
    sentence = too_few(120, 0.99, "validation image")
    assert sentence is not None and "120 validation images" in sentence and "at least 299" in sentence
    assert "only 97.5 % would be sure" in sentence
    assert too_few(299, 0.99, "validation image") is None


def test_a_perfect_model_answers_everything() -> None:
    confidence = np.linspace(0.5, 1, 700)
    chosen = choose(confidence, np.ones(700, bool), 0.99)
    assert chosen is not None and chosen.answered == 700 and chosen.threshold == 0.5
    assert chosen.sentence == (
        "Of what it answers, at least 99.5 % is right (95 % sure, n = 700); it answers 100 % of the images."
    )


def test_mistakes_below_a_confidence_are_left_out() -> None:
    confidence = np.linspace(0, 1, 2000)
    chosen = choose(confidence, confidence > 0.5, 0.99)
    assert chosen is not None and 0.5 < chosen.threshold < 0.515
    assert chosen.at_least >= 0.99 and chosen.right == chosen.answered > 960
    checked = answers(confidence, confidence > 0.5, chosen.threshold)
    assert checked == chosen


def test_equal_confidences_are_answered_together() -> None:
    confidence = np.r_[np.ones(500), np.full(100, 0.5)]
    correct = np.r_[np.ones(500, bool), np.zeros(100, bool)]
    chosen = choose(confidence, correct, 0.99)
    assert chosen is not None and (chosen.threshold, chosen.answered) == (1.0, 500)


def test_a_model_that_is_never_good_enough_gets_no_threshold() -> None:
    correct = np.arange(2000) % 10 > 0
    assert choose(np.linspace(0, 1, 2000), correct, 0.99) is None
    assert choose(np.linspace(0, 1, 100), np.ones(100, bool), 0.99) is None  # too few images


# Share of mistakes at confidence u, for u uniform in 0..1; the precision above u is one minus their mean over [u, 1].
WORLDS = {
    "steady": lambda u: 0.12 * (1 - u),
    "late": lambda u: 0.4 * np.exp(-6 * u),
    "step": lambda u: np.where(u > 0.4, 0.004, 0.09),
    "just too bad": lambda u: np.full_like(u, 0.0505),  # no threshold is good enough
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("images", "precision"), [(400, 0.95), (1500, 0.95)])
def test_the_guarantee_holds(world: str, images: int, precision: float) -> None:
    """Of 2,000 validation sets, at most 5 % choose a threshold whose true precision is below the required one."""
    random = np.random.default_rng(0)
    trials, failures = 2000, 0
    grid = np.linspace(0, 1, 4001)
    mistakes = WORLDS[world](grid)
    mean = np.cumsum(mistakes[::-1])[::-1] / np.arange(len(grid), 0, -1)  # over [u, 1]
    for _ in range(trials):
        confidence = random.random(images)
        correct = random.random(images) >= WORLDS[world](confidence)
        chosen = choose(confidence, correct, precision)
        if chosen is not None:
            failures += 1 - np.interp(chosen.threshold, grid, mean) < precision
    assert failures <= binom.ppf(0.999, trials, 0.05)


def test_thresholds_are_useful() -> None:
    """With mistakes that grow below confidence 0.5, nearly all images that may be answered are."""
    random = np.random.default_rng(1)
    shares = []
    for _ in range(50):
        confidence = random.random(3000)
        chosen = choose(confidence, random.random(3000) >= np.where(confidence > 0.5, 0.005, 0.3), 0.98)
        shares.append(0.0 if chosen is None else chosen.answered / chosen.images)
    assert 0.47 < np.median(shares) < 0.56

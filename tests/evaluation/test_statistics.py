"""Verdicts: how often they are wrong when nothing differs, how often right when something does, and references."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import bootstrap, t

from potstill.evaluation import statistics


def right(random: np.random.Generator, ease: np.ndarray, accuracy: float, *, seeds: int, spread: float) -> np.ndarray:
    """Simulate bool [seeds, N]: models of `accuracy` percent that vary by `spread` points from seed to seed.

    `ease` is normal [N]: some images are hard for every model, which is what makes a paired test worth it.
    """
    reached = ndtri(np.clip(accuracy + spread * random.normal(size=(seeds, 1)), 1, 99.9) / 100)
    return np.sqrt(0.8) * ease + np.sqrt(0.2) * random.normal(size=(seeds, len(ease))) < reached


def results(gain: float, *, seeds: int, images: int, spread: float, rounds: int = 300) -> list[str]:
    random = np.random.default_rng(11)
    found = []
    for _ in range(rounds):
        ease = random.normal(size=images)
        student = right(random, ease, 88 + gain, seeds=seeds, spread=spread)
        control = right(random, ease, 88, seeds=seeds, spread=spread)
        found.append(statistics.compare(student, control, resamples=1000, trained=spread > 0).result)
    return found


@pytest.mark.parametrize(("seeds", "images", "spread"), [(3, 540, 1.0), (3, 3000, 0.8), (5, 540, 1.0), (1, 540, 0.0)])
def test_equal_models_are_seldom_told_apart(seeds, images, spread):
    found = results(0.0, seeds=seeds, images=images, spread=spread)
    assert found.count("BEATS") <= 0.04 * len(found)
    assert found.count("LOSES") <= 0.04 * len(found)


def test_the_plain_bootstrap_of_three_seeds_would_call_noise_a_discovery():
    """The reason for the widening: without it far more than 5 % of equal models are told apart."""
    random = np.random.default_rng(11)
    wrong = 0
    for _ in range(200):
        ease = random.normal(size=3000)
        one, other = (right(random, ease, 88, seeds=3, spread=1.5).astype(int) for _ in "ab")
        delta = one - other
        by_image = statistics._by_image(delta, 500, random)
        by_seed = 100 * delta.mean(axis=1)[random.integers(0, 3, (500, 3))].mean(axis=1)
        low, high = np.quantile(by_image + by_seed, [0.025, 0.975])
        wrong += low > 0 or high < 0
    assert wrong >= 24


@pytest.mark.parametrize(("gain", "seeds", "spread"), [(8.0, 3, 0.5), (5.0, 5, 0.8)])
def test_a_real_gain_is_seen(gain, seeds, spread):
    assert results(gain, seeds=seeds, images=540, spread=spread, rounds=100).count("BEATS") >= 95
    assert results(-gain, seeds=seeds, images=540, spread=spread, rounds=100).count("LOSES") >= 95


def test_the_image_part_is_the_ordinary_bootstrap_of_the_mean():
    random = np.random.default_rng(2)
    student, control = random.uniform(size=(2, 400)) < [[0.9], [0.85]]
    delta = student.astype(float) - control
    expected = bootstrap((100 * delta,), np.mean, method="percentile", n_resamples=10_000, rng=random)
    found = statistics.compare(student, control)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.3)
    assert found.difference == pytest.approx(100 * delta.mean())


def test_seeds_that_differ_alike_on_every_image_get_student_s_t_interval():
    shares = np.array([0.2, 0.25, 0.3, 0.4, 0.45, 0.55, 0.6, 0.7])
    student = np.arange(40_000) % 100 < 100 * shares[:, None]
    found = statistics.compare(student, np.zeros_like(student))
    expected = t.interval(0.95, 7, 100 * shares.mean(), 100 * shares.std(ddof=1) / np.sqrt(8))
    assert found.interval == pytest.approx(expected, abs=1.5)


def test_more_seeds_and_more_images_narrow_the_interval():
    random = np.random.default_rng(0)
    ease = random.normal(size=8000)
    one, other = (right(random, ease, 88, seeds=8, spread=0.5) for _ in "ab")

    def width(seeds: int, images: int) -> float:
        low, high = statistics.compare(one[:seeds, :images], other[:seeds, :images]).interval
        return high - low

    assert width(8, 8000) < width(8, 500) < width(2, 500)


def test_identical_models_tie_with_no_interval():
    same = np.random.default_rng(0).uniform(size=(3, 100)) < 0.9
    found = statistics.compare(same, same)
    assert (found.result, found.difference, found.interval) == ("TIES", 0.0, (0.0, 0.0))
    assert "0 points may be chance (95 % interval 0 to 0;" in found.sentence


def test_the_same_in_any_type_and_the_same_every_time():
    random = np.random.default_rng(0)
    student, control = random.uniform(size=(2, 3, 200)) < 0.8
    found = statistics.compare(student, control)
    assert found == statistics.compare(student.astype(np.uint8), control.astype(np.int64))
    assert found != statistics.compare(student, control, seed=1)
    mirrored = statistics.compare(control, student)
    assert mirrored.difference == -found.difference
    assert mirrored.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=1.0)


def test_sentences_say_what_was_found_and_how_far_it_reaches():
    better, worse = np.ones((3, 500), bool), np.arange(1500).reshape(3, 500) % 10 > 0
    beats = statistics.compare(better, worse)
    assert beats.sentence.startswith("The distilled student beats the control by 10.0 points of test accuracy (95 %")
    assert beats.sentence.endswith("3 seeds, 500 test images).")
    assert statistics.compare(worse, better).sentence.startswith("The distilled student loses to the control by 10.0")
    small = statistics.compare(np.ones(100_000), np.arange(100_000) >= 30, trained=False)
    assert small.result == "BEATS" and "+0.02 to" in small.sentence


def test_one_trained_seed_never_tells_models_apart():
    better, worse = np.ones(500, bool), np.arange(500) % 10 > 0
    one = statistics.compare(better, worse, names=("A", "B"))
    assert one.result == "TIES" and one.interval[0] > 5 and statistics.p_value(better, worse) == 1.0
    assert one.sentence == (
        "One seed cannot decide whether A beats B: the difference of +10.0 points on 500 test images may be chance. "
        "Train 3 seeds."
    )
    assert "interval" not in statistics.compare(worse, worse).sentence
    two = statistics.compare(np.stack([better] * 2), np.stack([worse] * 2))
    assert "95 % interval" in two.sentence and "Train 3 seeds" not in two.sentence
    asked_twice = statistics.compare(better, worse, trained=False)
    assert asked_twice.result == "BEATS" and asked_twice.sentence.endswith("1 seed, 500 test images).")
    assert statistics.compare(worse, better, trained=False).result == "LOSES"


def test_a_verdict_is_json():
    found = statistics.compare(np.ones((2, 50)), np.zeros((2, 50)))
    read = json.loads(json.dumps(found.to_json()))
    assert read["interval"] == [100.0, 100.0] and read["result"] == "BEATS" and read["seeds"] == 2
    assert statistics.Verdict(**{**read, "interval": tuple(read["interval"])}) == found


def test_ten_seeds_and_ten_thousand_images_take_no_time():
    random = np.random.default_rng(0)
    student, control = random.uniform(size=(2, 10, 10_000)) < 0.9
    start = time.process_time()
    statistics.compare(student, control)
    assert time.process_time() - start < 0.5


def test_mean_interval_is_student_s():
    values = [90.1, 90.9, 91.2]
    expected = t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / np.sqrt(3))
    assert statistics.mean_interval(values) == pytest.approx(expected)
    assert statistics.mean_interval([90.0, 90.0]) == (90.0, 90.0)
    assert statistics.mean_interval([90.0]) is None


def test_an_interval_of_percentages_is_one_of_percentages():
    values = [10.0, 10.0, 60.0]
    low, high = statistics.mean_interval(values) or (0, 0)
    assert low < 0 and statistics.percent_interval(values) == (0.0, high)
    assert statistics.percent_interval([100 - value for value in values]) == (100 - high, 100.0)
    assert statistics.percent_interval([90.0]) is None


def test_proportion_interval_is_wilson_s():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662.
    assert statistics.proportion_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    low, high = statistics.proportion_interval(100, 100)
    assert high == 100.0 and 96.0 < low < 97.0


def test_mcnemar_counts_only_disagreements():
    one = np.array([1] * 8 + [0] * 2 + [1] * 90, bool)
    other = np.array([0] * 8 + [1] * 2 + [1] * 90, bool)
    assert statistics.mcnemar(one, other) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert statistics.mcnemar(one, other) == statistics.mcnemar(other, one)
    assert statistics.mcnemar(one, one) == 1.0


def test_holm_s_own_steps():
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.03, 0.005]), [0.06, 0.03, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])
    np.testing.assert_array_equal(statistics.holm([0.02]), [0.02])

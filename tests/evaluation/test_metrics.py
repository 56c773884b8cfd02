"""Metrics against scikit-learn and scipy, and by identities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score, top_k_accuracy_score

from potstill.evaluation import metrics


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 400)
    logits = random.normal(size=(400, 5)) + 1.5 * np.eye(5)[labels]
    return logits.astype(np.float32), labels


def test_as_scikit_learn(world):
    logits, labels = world
    called = logits.argmax(axis=1)
    assert metrics.accuracy(logits, labels) == pytest.approx(100 * accuracy_score(labels, called))
    for k in (1, 2, 3):
        expected = 100 * top_k_accuracy_score(labels, logits, k=k)
        assert metrics.top_k(logits, labels, k) == pytest.approx(expected)
    np.testing.assert_array_equal(metrics.confusion(logits, labels), confusion_matrix(labels, called))
    recall = 100 * recall_score(labels, called, average=None)
    np.testing.assert_allclose(metrics.per_class_recall(logits, labels), recall)
    assert metrics.macro_recall(logits, labels) == pytest.approx(recall.mean())
    expected = log_loss(labels, metrics.softmax(logits, 2.0))
    assert metrics.negative_log_likelihood(logits, labels, 2.0) == pytest.approx(expected)


def test_rows_without_label_are_left_out(world):
    logits, labels = world
    more = np.concatenate([logits, np.full((50, 5), 9.0, np.float32)])
    unknown = np.concatenate([labels, np.full(50, -100)])
    for measure in (
        metrics.accuracy,
        metrics.macro_recall,
        metrics.negative_log_likelihood,
        metrics.expected_calibration_error,
        metrics.fit_temperature,
        lambda logits, labels: metrics.top_k(logits, labels, 2),
    ):
        assert measure(more, unknown) == measure(logits, labels)
    assert len(metrics.correct(more, unknown)) == 400
    with pytest.raises(AssertionError, match="no row"):
        metrics.accuracy(logits, np.full(400, -100))


def test_a_class_that_does_not_occur_has_no_recall():
    logits, labels = np.eye(3)[[0, 1, 1]], np.array([0, 1, 0])
    np.testing.assert_array_equal(metrics.per_class_recall(logits, labels), [50.0, 100.0, np.nan])
    assert metrics.macro_recall(logits, labels) == 75.0


def test_top_k_breaks_ties_as_argmax_does():
    flat, labels = np.zeros((4, 4)), np.arange(4)
    assert [metrics.top_k(flat, labels, k) for k in (1, 2, 3, 4)] == [25.0, 50.0, 75.0, 100.0]
    assert metrics.top_k(flat, labels, 1) == metrics.accuracy(flat, labels)


def test_softmax_is_stable_and_as_scipy(world):
    logits, _ = world
    np.testing.assert_allclose(metrics.log_softmax(logits, 4.0), scipy_log_softmax(logits / 4.0, axis=1), atol=1e-6)
    huge = np.array([[1e4, 0.0, -1e4]], np.float16)
    np.testing.assert_array_equal(metrics.softmax(huge), [[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(metrics.softmax(logits, 1e9), 0.2, atol=1e-8)


def test_reliability_as_scikit_learn_for_two_classes():
    # With the label always class 0, the confidence of the rows that say class 0 is that class's probability.
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1.0, 3000)
    right = random.uniform(size=3000) < sure**2
    logits = np.log(np.stack([sure, 1 - sure], axis=1))
    diagram = metrics.reliability(logits, np.where(right, 0, 1), bins=10)
    share, mean = calibration_curve(right, sure, n_bins=10)
    filled = diagram.count > 0
    np.testing.assert_allclose(diagram.accuracy[filled], 100 * share)
    np.testing.assert_allclose(diagram.confidence[filled], 100 * mean)
    assert np.isnan(diagram.accuracy[~filled]).all() and diagram.count.sum() == 3000
    expected = 100 * (sure - sure**2).mean()
    assert diagram.error == pytest.approx(expected, abs=1.5)


def test_calibration_error_of_known_cases():
    certain = 50.0 * np.eye(2)[[0] * 10]
    assert metrics.expected_calibration_error(certain, np.zeros(10)) == pytest.approx(0.0)
    assert metrics.expected_calibration_error(certain, np.ones(10)) == pytest.approx(100.0)
    assert metrics.expected_calibration_error(certain, np.arange(10) % 2) == pytest.approx(50.0)
    half = np.zeros((10, 2))
    assert metrics.expected_calibration_error(half, np.arange(10) % 2) == pytest.approx(0.0)


def test_a_fitted_temperature_is_the_best_and_undoes_a_scale(world):
    logits, labels = world
    best = metrics.fit_temperature(logits, labels)
    assert metrics.fit_temperature(7 * logits, labels) == pytest.approx(7 * best, rel=1e-3)
    least = metrics.negative_log_likelihood(logits, labels, best)
    for other in (0.9 * best, 1.1 * best):
        assert least < metrics.negative_log_likelihood(logits, labels, other)


def test_a_calibrated_model_needs_no_temperature():
    random = np.random.default_rng(1)
    logits = random.normal(size=(20_000, 4))
    labels = (metrics.softmax(logits).cumsum(axis=1) < random.uniform(size=(20_000, 1))).sum(axis=1)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(1.0, abs=0.05)
    assert metrics.expected_calibration_error(logits, labels) < 1.5


def test_a_model_that_is_always_right_takes_the_sharpest_temperature():
    assert metrics.fit_temperature(np.eye(3), np.arange(3), low=0.05) == pytest.approx(0.05, rel=0.2)


def test_a_temperature_is_used_only_if_the_images_show_that_it_is_needed():
    random = np.random.default_rng(3)
    logits = random.normal(size=(400, 4))
    labels = (metrics.softmax(logits).cumsum(axis=1) < random.uniform(size=(400, 1))).sum(axis=1)
    assert metrics.calibration_temperature(logits, labels) is None
    assert metrics.calibration_temperature(1.3 * logits[:5], labels[:5]) is None
    assert metrics.calibration_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.2)
    assert metrics.calibration_temperature(np.eye(3), np.arange(3)) is None


def test_agreement_and_divergence(world):
    logits, _ = world
    assert metrics.agreement(logits, 3 * logits + 1) == 100.0
    assert metrics.agreement(np.eye(4), np.eye(4)[[0, 1, 3, 2]]) == 50.0
    assert metrics.divergence(logits, logits + 5.0, 4.0) == pytest.approx(0.0, abs=1e-12)
    teacher, student = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert metrics.divergence(teacher, student) == pytest.approx(expected)
    assert metrics.divergence(student, teacher) != pytest.approx(expected)

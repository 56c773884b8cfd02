"""Selection: min_confidence, distance, quotas with repetitions, churn, and what is worth labelling."""

from __future__ import annotations

import numpy as np

from potstill.stages.selftrain.corrections import most_informative
from potstill.stages.selftrain.selection import LOW_CONFIDENCE, OUT_OF_DISTRIBUTION, SURPLUS, USED, churn, select

EVEN = np.array([5, 5])


def chance(*first: float) -> np.ndarray:
    return np.array([[p, 1 - p] for p in first])


def chosen(p: np.ndarray, distance: np.ndarray | None = None, **changes: object):
    usual = {"min_confidence": 0.3, "max_distance": 1.5, "quota": None, "copies": 5, "most": 100}
    return select(p, np.zeros(len(p)) if distance is None else distance, EVEN, **{**usual, **changes})


def test_rare_classes_are_repeated_and_frequent_ones_cut_to_the_surest() -> None:
    p = chance(0.9, 0.8, 0.95, 0.7, 0.6, 0.1)
    found = chosen(p)
    assert sorted(found.rows.tolist()) == [0, 1, 2, 5, 5, 5]
    assert found.state.tolist() == [USED, USED, USED, SURPLUS, SURPLUS, USED]
    assert found.histogram(2) == [3, 3]


def test_an_image_is_repeated_at_most_so_often() -> None:
    found = chosen(chance(0.9, 0.8, 0.95, 0.7, 0.6, 0.1), copies=2)
    assert found.histogram(2) == [3, 2]


def test_the_quota_is_kept_and_an_empty_class_stays_empty() -> None:
    found = chosen(chance(0.9, 0.8, 0.95), quota=2)
    assert found.rows.tolist() == [2, 0]


def test_unsure_and_strange_images_are_left_out() -> None:
    p = np.array([[0.28, 0.25, 0.24, 0.23], [0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0]])
    found = select(
        p, np.array([0.0, 1.6, 1.4]), np.ones(4), min_confidence=0.3, max_distance=1.5, quota=1, copies=5, most=9
    )  # fmt: skip
    assert found.state.tolist() == [LOW_CONFIDENCE, OUT_OF_DISTRIBUTION, USED]


def test_the_budget_bounds_the_rows() -> None:
    assert len(chosen(chance(*np.linspace(0.0, 1.0, 50)), most=20).rows) == 20


def test_many_classes_share_few_images() -> None:
    """100 classes and 45 sure images: a quota of 0.45 each, of which 45 classes get one."""
    p = np.full((45, 100), 0.001)
    p[np.arange(45), np.arange(45)] = 0.9
    settings = {"min_confidence": 0.3, "max_distance": 1.5, "quota": None, "copies": 1, "most": 100}
    assert select(p, np.zeros(45), np.ones(100), **settings).rows.tolist() == list(range(45))


def test_nothing_eligible_gives_no_rows() -> None:
    assert chosen(chance(0.5), min_confidence=0.9).rows.tolist() == []


def test_churn_counts_changed_labels() -> None:
    assert churn(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 25.0


def test_most_informative_takes_disputed_images_of_every_class_in_turns() -> None:
    p = chance(0.99, 0.55, 0.6, 0.2, 0.45)
    assert most_informative(p, np.zeros(5), 2).tolist() == [4, 1] or most_informative(p, np.zeros(5), 2).tolist() == [
        1,
        4,
    ]
    disputed = most_informative(p, np.array([0.9, 0, 0, 0, 0]), 1)
    assert disputed.tolist() in ([1], [4])

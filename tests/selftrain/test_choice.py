"""The choice: the pool must help by more than the standard error of the paired difference."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.stages.selftrain.choice import choose, gain


def rights(*hits: int, of: int = 20) -> np.ndarray:
    return np.stack([np.arange(of) < hit for hit in hits])


def test_gain_is_paired() -> None:
    before, after = rights(10, 10), rights(14, 14)
    difference, error = gain(after, before)
    assert difference == pytest.approx(20.0)
    each = np.r_[np.ones(4), np.zeros(16)]
    assert error == pytest.approx(100 * each.std(ddof=1) / np.sqrt(20))
    assert gain(before, before) == (0.0, 0.0)


def test_one_image_that_tips_is_no_proof() -> None:
    choice = choose({"labels only": rights(15)}, {"distilled with the pool": rights(16)})
    assert not choice.helped
    assert choice.kept == "labels only"
    assert "did not help" in choice.sentence and "kept the model without them" in choice.sentence


def test_a_clear_gain_is_kept_and_the_best_row_chosen() -> None:
    with_pool = {"distilled with the pool": rights(17), "round 1": rights(19)}
    choice = choose({"labels only": rights(10), "distilled on labels": rights(11)}, with_pool)
    assert (choice.helped, choice.kept, choice.without) == (True, "round 1", "distilled on labels")
    assert choice.difference == pytest.approx(40.0)


def test_without_any_row_of_the_pool_the_plain_model_is_kept() -> None:
    choice = choose({"labels only": rights(10)}, {})
    assert not choice.helped and "none of them could be used" in choice.sentence


def test_of_equal_rows_the_simpler_is_taken() -> None:
    choice = choose({"labels only": rights(5)}, {"distilled with the pool": rights(18), "round 1": rights(18)})
    assert choice.kept == "distilled with the pool"


def test_a_validation_split_that_is_too_small_to_tell_is_told() -> None:
    few, many = rights(3, of=6), rights(3, of=6)[:, ::-1]
    assert "more labels would tell" in choose({"labels only": few}, {"round 1": many}).sentence
    same = choose({"labels only": few}, {"round 1": few}).sentence
    assert "more labels" not in same

"""The choice: the pool must help by more than the standard error of the paired difference."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.stages.recipe import StudentConfig
from potstill.stages.selftrain.choice import choose, gain
from potstill.stages.selftrain.rounds import Rounds, Row


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


def test_a_round_is_worse_only_by_more_than_the_standard_error() -> None:
    def row(correct: np.ndarray) -> Row:
        return Row("round", StudentConfig(), [], 0, True, correct)

    assert not Rounds._worse(row(rights(17)), row(rights(18)))
    assert not Rounds._worse(row(rights(18)), row(rights(18)))
    assert Rounds._worse(row(rights(12)), row(rights(18)))


def test_without_any_row_of_the_pool_the_plain_model_is_kept() -> None:
    choice = choose({"labels only": rights(10)}, {})
    assert not choice.helped and "none could be used" in choice.sentence


def test_of_rows_with_the_pool_the_last_counts_unless_it_is_clearly_worse() -> None:
    alone = {"labels only": rights(5), "distilled on labels": rights(5)}
    choice = choose(alone, {"distilled with the pool": rights(18), "round 1": rights(17)})
    assert (choice.kept, choice.without) == ("round 1", "labels only")
    worse = choose(alone, {"distilled with the pool": rights(18), "round 1": rights(12)})
    assert worse.kept == "distilled with the pool"


def test_crossfitted_labels_count_as_held_out_images() -> None:
    few, folds = rights(3, of=5), rights(30, of=40)
    plain = np.concatenate([few, rights(20, of=40)], 1)
    choice = choose({"labels only": plain}, {"round 1": np.concatenate([few, folds], 1)}, validation=5)
    assert choice.helped and choice.images == 45
    assert "5 validation images and 40 cross-fitted labels" in choice.sentence
    assert not choose({"labels only": few}, {"round 1": few}).helped


def test_labels_that_are_too_few_to_tell_are_told() -> None:
    few, many = rights(3, of=6), rights(3, of=6)[:, ::-1]
    assert "add labels to detect them" in choose({"labels only": few}, {"round 1": many}).sentence
    same = choose({"labels only": few}, {"round 1": few}).sentence
    assert "add labels" not in same

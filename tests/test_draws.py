"""Draws are pure functions of their key, uniform, and independent between keys."""

from __future__ import annotations

import numpy as np

from potstill.data.draws import permutation, uniform


def test_a_row_does_not_depend_on_its_company() -> None:
    index, view = np.arange(50), np.arange(50) % 3
    together = uniform(7, index, view, 4, "crop")
    alone = np.concatenate([uniform(7, index[[i]], view[[i]], 4, "crop") for i in range(50)])
    assert np.array_equal(together, alone)


def test_every_part_of_the_key_matters() -> None:
    index = np.arange(100)
    base = uniform(0, index, np.zeros(100, int), 3, "a")
    others = [
        uniform(1, index, np.zeros(100, int), 3, "a"),
        uniform(0, index + 1, np.zeros(100, int), 3, "a"),
        uniform(0, index, np.ones(100, int), 3, "a"),
        uniform(0, index, np.zeros(100, int), 3, "b"),
    ]
    assert all((base != other).mean() > 0.98 for other in others)
    assert np.array_equal(base[:, :2], uniform(0, index, np.zeros(100, int), 2, "a"))


def test_uniform_and_uncorrelated() -> None:
    values = uniform(3, np.arange(20_000), np.full(20_000, -1), 2, "x")
    assert 0 <= values.min() and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.03


def test_permutations() -> None:
    one = permutation(0, 3, 100)
    assert sorted(one) == list(range(100))
    assert np.array_equal(one, permutation(0, 3, 100))
    assert not np.array_equal(one, permutation(0, 4, 100)) and not np.array_equal(one, permutation(1, 3, 100))

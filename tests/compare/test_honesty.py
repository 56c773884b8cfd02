"""A short version of benchmarks/honesty.py, and p values that hold what they promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from potstill.evaluation.statistics import compare, p_value


@pytest.fixture(scope="module")
def honesty() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "honesty.py"
    spec = importlib.util.spec_from_file_location("honesty", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["honesty"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_equals_are_not_told_apart_and_noise_teaches_nothing(honesty: ModuleType) -> None:
    found = honesty.measure(comparisons=4, noise=2)
    assert found["trainings"] == 4 * 2 * 3 + 2 * 3
    assert found["against_itself"]["comparisons"] == 4 and found["against_itself"]["BEATS"] <= 1
    assert found["noise_teacher"]["comparisons"] == 2 and found["noise_teacher"]["BEATS"] == 0
    assert found["accuracy"]["mean"] > 70  # the models learned something
    assert "BEATS" in honesty.page(found, "python benchmarks/honesty.py")


def test_no_model_is_in_two_comparisons(honesty: ModuleType) -> None:
    pool = np.zeros((20, 50), bool)
    pool[:3] = True  # the first comparison's first side is right on everything
    found = honesty.against_itself(pool, 3)
    assert found["comparisons"] == 3 and found["BEATS"] == 1 and found["LOSES"] == 0


def worlds(count: int, *, gap: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of 3 seeds x 2,000 images whose accuracy varies by half a point from seed to seed."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        level = 0.9 + 0.005 * random.normal(size=(2, 3, 1)) + np.array([gap, 0])[:, None, None]
        made.append(tuple(random.random((2, 3, 2000)) < level))
    return made


def test_p_is_below_the_level_exactly_where_the_verdict_is_not_a_tie() -> None:
    for one, other in worlds(15, gap=0.02):
        verdict = compare(one, other)
        p = p_value(one, other)
        assert (p < 0.05) == (verdict.result != "TIES") or abs(p - 0.05) < 1e-3
        assert p == pytest.approx(p_value(other, one), abs=0.02)


def test_p_is_rarely_small_where_there_is_nothing() -> None:
    values = np.array([p_value(one, other, resamples=2000) for one, other in worlds(100, gap=0.0)])
    assert (values < 0.05).mean() <= 0.1 and np.median(values) > 0.3


def test_p_of_nothing_and_of_everything() -> None:
    right, wrong = np.ones((3, 100), bool), np.zeros((3, 100), bool)
    assert p_value(right, right) == 1.0
    assert p_value(right, wrong) == pytest.approx(2e-4)

"""Figures in words, labels kept apart, advice that fits."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from potstill import words
from potstill.report import advice, charts
from potstill.report.charts import Line, mean_curve
from potstill.report.layout import Box, place, spread
from potstill.report.tables import forest


@pytest.mark.parametrize(("found", "expected"), [
    (words.signed(8.37), "+8.4"), (words.signed(-0.31), "−0.3"), (words.signed(-0.04), "0.0"),
    (words.signed(0.042, 2), "+0.04"), (words.percent(97.126), "97.1 %"), (words.percent(97.126, 2), "97.13 %"),
    (words.size(812), "812 B"), (words.size(81_240), "81 kB"), (words.size(5_655_120), "5.7 MB"),
    (words.size(999_700), "1 MB"), (words.size(2.1e9), "2.1 GB"), (words.milliseconds(0.0142), "0.014 ms"),
    (words.milliseconds(12.4), "12 ms"), (words.significant(7.6e-6), "7.6 × 10⁻⁶"), (words.significant(0), "0"),
    (words.significant(0.997), "1"), (words.significant(9.97), "10"), (words.duration(3.21), "3.2 s"),
    (words.duration(59.6), "1 min 0 s"), (words.duration(200), "3 min 20 s"), (words.duration(7500), "2 h 5 min"),
    (words.plural(1, "seed"), "1 seed"), (words.plural(2, "epoch"), "2 epochs"),
    (words.plural(2, "batch"), "2 batches"), (words.plural(1200, "class"), "1,200 classes"),
    (words.plural(2, "party", "parties"), "2 parties"),
    (words.ratio(81_240, 5_655_120), "70x smaller"), (words.ratio(10, 39), "3.9x smaller"),
    (words.ratio(7, 7), "same size"), (words.ratio(21, 10), "2.1x larger"),
    (words.date("2026-11-21T13:05:00+00:00"), "21 November 2026, 13:05 UTC"),
    (words.date("2026-11-01T09:00:00+02:00"), "1 November 2026, 09:00 UTC+02:00"),
])  # fmt: skip
def test_figures_in_words(found, expected):
    assert found.replace(words.NBSP, " ") == expected


def test_labels_are_spread_in_order_and_inside():
    random = np.random.default_rng(0)
    for _ in range(200):
        wanted = random.uniform(0, 10, size=random.integers(1, 6)).tolist()
        placed = spread(wanted, gap=1.5, low=0.0, high=10.0)
        order = np.argsort(wanted, kind="stable")
        assert (np.diff(np.array(placed)[order]) >= 1.5 - 1e-9).all()
        assert min(placed) >= -1e-9 and max(placed) <= 10 + 1e-9
    assert spread([2.0, 5.0], gap=1.0, low=0.0, high=10.0) == [2.0, 5.0]
    assert spread([5.0, 5.0], gap=1.0, low=0.0, high=10.0) in ([4.5, 5.5], [5.5, 4.5])


def test_names_of_points_cover_nothing():
    bodies = [Box(90, 90, 98, 98), Box(90, 88, 98, 97), Box(86, 90, 94, 96), Box(200, 140, 208, 150)]
    frame = Box(0, 0, 240, 160)
    placed = place(bodies, [(40, 10), (35, 10), (70, 10), (40, 10)], frame)
    for one, other in itertools.combinations(placed, 2):
        assert one.overlap(other) == 0
    for box in placed:
        assert all(box.overlap(body) == 0 for body in bodies)
        assert box.overlap(frame) == pytest.approx(box.area)
    assert bodies[3].distance(placed[3]) <= 10


def test_the_bold_line_is_the_mean_as_far_as_every_seed_goes():
    line = Line("student", "Student", (((1, 2, 3), (1.0, 2.0, 3.0)), ((1, 2), (3.0, 6.0))))
    assert mean_curve(line) == ([1, 2], [2.0, 4.0])


def summary(result: str, *, teacher: float, unlabelled: int, temperature: float, seeds: int) -> dict:
    return {
        "kind": "distill",
        "models": {"teacher": {"accuracy": teacher}, "control": {"accuracy": 90.0, "test_accuracy": [90.0] * seeds}},
        "data": {"splits": {"unlabelled": unlabelled}},
        "recipe": {"objective": {"terms": [{"loss": "kd", "options": {"temperature": temperature}}]}},
        "verdict": {"result": result, "difference": -0.1, "interval": [-0.5, 0.3], "seeds": seeds},
    }


def test_advice_is_only_what_fits_the_run():
    easy = summary("TIES", teacher=99, unlabelled=500, temperature=2.0, seeds=5)
    assert advice.suggestions(easy) == ["Try a larger student: this one may be at its capacity."]
    effect = advice.effect(easy, 1)
    assert effect is not None and "between −0.5 and +0.3 points" in effect.meaning
    hard = advice.suggestions(summary("TIES", teacher=89, unlabelled=0, temperature=8.0, seeds=3))
    for words_ in ("better teacher first", "unlabelled images", "temperature than 8", "more seeds (this run had 3)"):
        assert any(words_ in line for line in hard), words_
    lost = advice.suggestions(summary("LOSES", teacher=99, unlabelled=0, temperature=2.0, seeds=3))
    assert lost and not any("more seeds" in line for line in lost)
    assert advice.suggestions(summary("BEATS", teacher=99, unlabelled=0, temperature=2.0, seeds=3)) == []


LINES = {
    "equal": [((1, 2, 3), (97.5, 97.5, 97.5)), ((1, 2, 3), (97.5001, 97.5, 97.5))],
    "one epoch": [((1,), (50.0,))],
    "all right": [((1, 2), (100.0, 100.0))],
    "zero": [((1, 2), (0.0, 0.0))],
    "rising": [(tuple(range(1, 11)), (10.0, 90.0, *(97.0 + n / 10 for n in range(8))))],
}


@pytest.mark.parametrize("name", LINES)
def test_charts_of_odd_curves(name):
    lines = [Line("student", f"line {n}", (pair,)) for n, pair in enumerate(LINES[name])]
    for from_zero in (True, False):
        svg = charts.curve(lines, name=name, alt=name, from_zero=from_zero)
        assert "nan" not in svg.lower() and "1e" not in re.sub(r"<[^>]*>", "", svg)
        assert ("cut off" in svg) == (name == "rising" and not from_zero)
    low, high = charts._limits(lines, from_zero=False)
    assert high - low >= 2  # equal values are not drawn apart


def test_intervals_on_one_scale_with_round_ticks():
    rows = [{"difference": 3.0, "interval": [-2.0, 8.0]}, {"difference": -8.7, "interval": [-11.5, -5.9]}]
    made = forest(rows, 1)
    assert [text for _, text in made["ticks"]] == ["−10.0", "−5.0", "0.0", "+5.0"]
    assert {text: at for at, text in made["ticks"]}["0.0"] == made["zero"]
    assert all(0 <= row["low"] <= row["dot"] <= row["high"] <= 100 for row in made["rows"])
    assert [text for _, text in forest([{"difference": 0.0, "interval": [0.0, 0.0]}], 1)["ticks"]] == ["0.0"]


def test_charts_at_the_edges():
    for curve in ([[100.0, 100.0]], [[50.0, 100.0], [100.0, 100.0]], [[1.0, 0.0], [100.0, 0.0]]):
        assert "<svg" in charts.precision(curve, name="edge", alt="edge")
    point = [charts.Point("student", name, 100, 100.0, (100.0, 100.0)) for name in ("one", "two")]
    assert charts.tradeoff(point, axis="size", tick=str, name="same", alt="same", log=False).count("</svg>") == 1
    assert "<svg" in charts.reliability([(50.0, 50.0)], [4], model="student", name="one bin", alt="one bin")

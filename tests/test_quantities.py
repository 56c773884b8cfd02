"""Sizes, times and counts as they are typed."""

from __future__ import annotations

import re

import pytest

from potstill.config import Bytes, Config, Count, Milliseconds, Minutes, build
from potstill.errors import ConfigError
from potstill.quantities import to_bytes, to_count, to_time


class Budget(Config):
    max_bytes: Bytes | None = None
    max_macs: Count | None = None
    max_latency: Milliseconds | None = None
    minutes: Minutes | None = None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("300kB", 300_000), ("300 KB", 300_000), ("64kb", 64_000), ("64k", 64_000), ("64KiB", 65_536),
        ("2.5MB", 2_500_000), (".5 MB", 500_000), ("1MiB", 1_048_576), ("2.55MB", 2_550_000), ("98496", 98_496),
        ("98496 bytes", 98_496), ("1e6", 1_000_000), (98_496, 98_496), (1e5, 100_000), ("2GB", 2_000_000_000),
    ],
)  # fmt: skip
def test_sizes(text: str | float, number: int) -> None:
    assert to_bytes(text) == number


def test_counts_and_times() -> None:
    assert (to_count("20M"), to_count("1.5k"), to_count(7), to_count("20m")) == (20_000_000, 1_500, 7, 20_000_000)
    assert (to_time("2ms", "ms"), to_time("0.5 s", "ms"), to_time("250us", "ms"), to_time(3, "ms")) == (2, 500, 0.25, 3)
    assert (to_time("30 minutes", "min"), to_time("90s", "min"), to_time("1.5h", "min")) == (30, 1.5, 90)
    assert to_time(0.1, "min") == 0.1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("300 kilos", "'300 kilos' has the unknown unit 'kilos': a size takes B, kB, MB or GB"),
        ("300ms", "unknown unit 'ms'"), ("2,5MB", "decimals with a point"), ("-3kB", "not a size above 0"),
        ("0kB", "must be above 0"), ("", "is not a size"), ("kB", "Write it like 300kB"), ("nan", "is not a size"),
        (True, "is not a size"), ("0.4", "less than 1 B"), (float("inf"), "is not a size"), ("1 2kB", "is not a size"),
        (2.5, "not a whole number"),
    ],
)  # fmt: skip
def test_what_is_no_size_gets_a_sentence(text: str | float, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        to_bytes(text)


def test_settings_take_units_and_tell_all_mistakes() -> None:
    budget = build(Budget, {"max_bytes": "300kB", "max_macs": "20M", "max_latency": "2ms", "minutes": "1h"})
    assert budget.to_json() == {"max_bytes": 300_000, "max_macs": 20_000_000, "max_latency": 2.0, "minutes": 60.0}
    with pytest.raises(ConfigError) as error:
        build(Budget, {"max_bytes": "300 apples", "max_macs": "20ms", "minutes": 0})
    assert [problem.split(":")[0] for problem in error.value.problems] == ["max_bytes", "max_macs", "minutes"]

"""The ticks of the front: enough of them, and apart."""

from __future__ import annotations

import math

import pytest

from potstill.report.front import ticks


@pytest.mark.parametrize("low", [0.4, 1.1, 270_000.0, 9_999.0])
@pytest.mark.parametrize("factor", [3.3, 6.0, 30.0, 500.0, 1e5])
def test_ticks_are_at_least_three_and_apart(low: float, factor: float) -> None:
    found = ticks(low, low * factor)
    gaps = [math.log(after / before) / math.log(factor) for before, after in zip(found, found[1:], strict=False)]
    assert len(found) >= 3 and min(gaps) > 0.12 and low <= found[0] and found[-1] <= low * factor

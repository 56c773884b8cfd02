"""FixMatch and FreeMatch against values worked out by hand from the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from potstill.losses.consistency import FreeMatch, fairness, fixmatch

LOG = math.log


def logits(*rows: tuple[float, ...]) -> Tensor:
    """Return logits whose softmax is `rows`."""
    return torch.tensor(rows).log()


def test_fixmatch_counts_only_rows_whose_weak_view_is_sure() -> None:
    weak = logits((0.97, 0.02, 0.01), (0.6, 0.3, 0.1), (0.02, 0.02, 0.96))
    strong = logits((0.5, 0.25, 0.25), (0.2, 0.2, 0.6), (0.1, 0.8, 0.1))
    values = fixmatch(strong, weak)
    torch.testing.assert_close(values, torch.tensor([LOG(2), 0.0, LOG(10)]))
    assert fixmatch(strong, weak, threshold=0.5).tolist() == pytest.approx([LOG(2), LOG(5), LOG(10)])


def test_fixmatch_gives_the_weak_view_no_gradient() -> None:
    weak, strong = logits((0.98, 0.02)).requires_grad_(), logits((0.5, 0.5)).requires_grad_()
    fixmatch(strong, weak).sum().backward()
    torch.testing.assert_close(strong.grad, torch.tensor([[-0.5, 0.5]]))
    assert weak.grad is None or not weak.grad.any()


def test_fairness_is_the_papers_sum() -> None:
    strong = logits((0.75, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.25))
    p, h = torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5])
    # p' = (.625, .375), h' = (.75, .25): p'/h' = (5/6, 3/2), normed (5/14, 9/14); p/h normed is (.6, .4)
    expected = 0.6 * LOG(5 / 14) + 0.4 * LOG(9 / 14)
    assert fairness(strong, p, h).item() == pytest.approx(expected, rel=1e-5)
    assert fairness(strong[:0], p, h).item() == 0


def test_freematch_follows_the_network_and_scales_its_threshold_by_class() -> None:
    rule = FreeMatch(2, momentum=0.5, fairness_weight=0.0)
    weak = logits((0.9, 0.1), (0.7, 0.3), (0.4, 0.6), (0.8, 0.2))
    strong = logits((0.5, 0.5), (0.5, 0.5), (0.75, 0.25), (0.5, 0.5))
    values = rule(strong, weak)
    assert rule.tau.item() == pytest.approx(0.5 * 0.5 + 0.5 * 0.75)  # the mean of the largest is .75
    assert rule.p.tolist() == pytest.approx([0.5 * 0.5 + 0.5 * 0.7, 0.5 * 0.5 + 0.5 * 0.3])
    assert rule.h.tolist() == pytest.approx([0.5 * 0.5 + 0.5 * 0.75, 0.5 * 0.5 + 0.5 * 0.25])
    assert rule.thresholds.tolist() == pytest.approx([0.625, 0.625 * 0.4 / 0.6])
    assert values.tolist() == pytest.approx([LOG(2), LOG(2), LOG(4), LOG(2)])  # .6 suffices for the rarer class
    assert rule(strong, logits((0.6, 0.4), (0.6, 0.4), (0.4, 0.6), (0.6, 0.4)))[0].item() == 0


def test_freematch_adds_fairness_to_every_row_and_saves_its_averages() -> None:
    weak, strong = logits((0.9, 0.1), (0.2, 0.8)), logits((0.75, 0.25), (0.25, 0.75))
    plain, fair = FreeMatch(2, momentum=0.9, fairness_weight=0.0), FreeMatch(2, momentum=0.9, fairness_weight=0.5)
    difference = fair(strong, weak) - plain(strong, weak)
    torch.testing.assert_close(difference, 0.5 * fairness(strong, fair.p, fair.h).expand(2))
    other = FreeMatch(2)
    other.load_state_dict(fair.state_dict())
    assert torch.equal(other.thresholds, fair.thresholds) and set(fair.state_dict()) == {"tau", "p", "h"}

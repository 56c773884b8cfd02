"""Histograms against numpy's, and calibration methods that really differ and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from potstill.compress.quantize.observe import BINS, Histogram, observe
from potstill.compress.quantize.ranges import METHODS, activation_grid, weight_steps
from potstill.errors import DataError, ModelError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def histogram(*tensors: torch.Tensor) -> Histogram:
    seen = Histogram()
    for tensor in tensors:
        seen.add(tensor)
    return seen


def test_a_growing_histogram_equals_the_one_of_all_values():
    parts = [torch.randn(1000) * 0.01, torch.randn(1000), torch.cat([torch.zeros(50), torch.randn(1000) * 37])]
    seen, everything = histogram(*parts), torch.cat(parts)
    expected, _ = np.histogram(everything[everything != 0].numpy(), bins=2 * BINS, range=(-seen.limit, seen.limit))
    assert np.array_equal(seen.counts.numpy(), expected)
    assert seen.zeros == 50
    assert (seen.low, seen.high) == (everything.min().item(), everything.max().item())
    assert seen.limit / 2 < everything.abs().max() <= seen.limit


def rounded(x: torch.Tensor, seen: Histogram, bits: int, method: str) -> torch.Tensor:
    step, lowest = activation_grid(seen, bits, method)
    return torch.fake_quantize_per_tensor_affine(x, step, -lowest, 0, 2**bits - 1)


def test_minmax_is_exact_and_unsigned_after_a_relu():
    x = torch.randn(5000)
    step, lowest = activation_grid(histogram(x.relu()), 8, "minmax")
    assert lowest == 0
    assert step * 255 == pytest.approx(x.max().item())
    step, lowest = activation_grid(histogram(x), 8, "minmax")
    assert -128 - 40 < lowest < -128 + 40
    assert step * 255 == pytest.approx((x.max() - x.min()).item())


def test_zero_is_always_on_the_grid():
    step, lowest = activation_grid(histogram(torch.rand(100) + 5), 8, "minmax")
    assert lowest == 0 and step * 255 == pytest.approx(6, abs=0.1)
    step, lowest = activation_grid(histogram(-torch.rand(100)), 8, "minmax")
    assert lowest == -255
    assert activation_grid(histogram(torch.zeros(9)), 8, "minmax") == (1.0, 0)


def test_percentile_agrees_with_numpy():
    x = torch.randn(200_000)
    low, high = METHODS["percentile"](histogram(x), 8)
    expected = np.quantile(x.numpy(), [0.0001, 0.9999])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.05)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_has_the_least_error_of_all_methods(bits):
    x = torch.distributions.StudentT(3.0).sample((20_000,))
    seen = histogram(x)
    error = {method: (rounded(x, seen, bits, method) - x).square().mean().item() for method in METHODS}
    assert error["mse"] <= min(error.values()) * 1.02
    assert error["mse"] < error["minmax"]


@pytest.mark.parametrize("bits", [4, 8])
def test_the_methods_give_different_grids(bits):
    seen = histogram(torch.distributions.StudentT(3.0).sample((20_000,)).relu())
    steps = [activation_grid(seen, bits, method)[0] for method in METHODS]
    assert len(set(steps)) == len(METHODS)
    assert max(steps) == steps[list(METHODS).index("minmax")]


def test_entropy_clips_an_outlier_and_keeps_an_even_distribution():
    even = torch.rand(50_000)
    assert METHODS["entropy"](histogram(even), 8)[1] > 0.95
    low, high = METHODS["entropy"](histogram(even, torch.tensor([20.0])), 8)
    assert 0.9 < high < 5


@pytest.mark.parametrize("bits", range(2, 9))
def test_weight_steps_by_channel(bits):
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1.0, 10, 100, 0, 1e-3]).view(-1, 1, 1, 1)
    steps = {method: weight_steps(weight, bits, method) for method in ("absmax", "mse", "lsq")}
    largest = 2 ** (bits - 1) - 1
    assert all(step.shape == (5, 1, 1, 1) and (step > 0).all() for step in steps.values())
    assert (steps["absmax"] * largest).flatten().tolist() == pytest.approx(
        [w.abs().max().item() if w.any() else largest for w in weight]
    )

    def error(step: torch.Tensor) -> torch.Tensor:
        points = torch.zeros(5, dtype=torch.int32)
        q = torch.fake_quantize_per_channel_affine(weight, step.flatten(), points, 0, -largest - 1, largest)
        return (q - weight).square().flatten(1).sum(1)

    assert (error(steps["mse"]) <= error(steps["absmax"]) * 1.0001 + 1e-12).all()
    expected = 2 * weight[0].abs().mean() / largest**0.5
    torch.testing.assert_close(steps["lsq"][0].squeeze(), expected)


def test_observing_follows_the_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.unused, self.first = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(3, 4)

        def forward(self, x):
            return self.last(self.first(x).relu())

    seen = observe(Backwards(), iter([torch.ones(2, 3), -2 * torch.ones(1, 3)]))
    assert list(seen) == ["first", "last"]
    assert (seen["first"].low, seen["first"].high) == (-2.0, 1.0)
    assert seen["last"].low >= 0


def test_what_cannot_be_observed_is_said():
    with pytest.raises(DataError, match="There are no images for calibration"):
        observe(nn.Sequential(nn.Linear(2, 2)), [])
    with pytest.raises(DataError, match="inf or NaN"):
        observe(nn.Sequential(nn.Linear(2, 2)), [torch.tensor([[float("nan"), 0]])])
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        observe(nn.ReLU(), [torch.zeros(1)])

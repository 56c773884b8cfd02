"""A layer in a number format against the same products written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compress.formats import parse_format
from potstill.compress.quantize import plain, simulated
from tests.compress.nets import OptionAResNet, lived_in

IMAGE = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_weights_inputs_and_gradients_are_rounded_where_they_are_used():
    layer, x = nn.Linear(5, 3), torch.randn(7, 5, requires_grad=True)
    e4m3, q4, e5m2 = parse_format("e4m3"), parse_format("q3.3"), parse_format("e5m2")
    model = simulated(layer, weights=e4m3, activations=q4, gradients=e5m2)
    out = model(x)
    rounded_weight, rounded_x = e4m3.quantize(layer.weight), q4.quantize(x)
    torch.testing.assert_close(out, rounded_x @ rounded_weight.T + layer.bias)
    gradient = torch.randn(7, 3)
    out.backward(gradient)
    gradient = e5m2.quantize(gradient)
    torch.testing.assert_close(x.grad, gradient @ rounded_weight)
    torch.testing.assert_close(model.parametrizations.weight.original.grad, gradient.T @ rounded_x)
    torch.testing.assert_close(model.bias.grad, gradient.sum(0))


def test_integers_fit_themselves_to_each_tensor():
    layer, x = nn.Linear(5, 3), torch.randn(7, 5)
    model = simulated(layer, weights=parse_format("int4"), activations=parse_format("uint8"))
    step = layer.weight.abs().max() / 7
    span = x.max() - x.min()
    with torch.no_grad():
        weight = (layer.weight / step).round() * step
        near = F.linear(x, weight, layer.bias)
        assert (model(x) - near).abs().max() < 5 * span / 255 * weight.abs().sum(1).max()
        torch.testing.assert_close(plain(model).weight, weight)


def test_coarser_formats_are_further_from_float():
    model = lived_in(OptionAResNet())

    def distance(text: str) -> float:
        number = parse_format(text)
        with torch.no_grad():
            return (simulated(model, weights=number, activations=number)(IMAGE) - model(IMAGE)).norm().item()

    distances = [distance(text) for text in ("e8m18", "fp16", "bf16", "e4m3", "e4m1")]
    assert distances == sorted(distances) and distances[0] > 0


@pytest.mark.parametrize("gradients", ["bf16", "q1.15"])
def test_a_simulated_model_trains_and_becomes_an_ordinary_one(gradients):
    generator = torch.Generator().manual_seed(0)
    number = parse_format(gradients, rounding="stochastic")
    model = simulated(OptionAResNet(), weights=parse_format("q2.6"), gradients=number, generator=generator)
    model = copy.deepcopy(model)  # a generator cannot be copied; a model with one can
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(model(IMAGE), torch.arange(4))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    ordinary = plain(model.eval())
    assert set(ordinary.state_dict()) == set(OptionAResNet().state_dict())
    assert torch.equal(parse_format("q2.6").quantize(ordinary.conv1.weight), ordinary.conv1.weight)
    with torch.no_grad():
        assert torch.equal(ordinary(IMAGE), model(IMAGE))

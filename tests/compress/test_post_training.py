"""Equalization, bias correction and mixed precision: what each must keep and what it must improve."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.compress.quantize import allocate, correct_bias, equalize, fold_batchnorm, observe, quantized, sensitivity
from potstill.errors import ConfigError
from tests.compress.nets import OptionAResNet, lived_in, separable


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


IMAGE = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_equalization_keeps_outputs_and_evens_out_channels():
    model = fold_batchnorm(lived_in(separable(groups=1)), IMAGE).double()
    with torch.no_grad():
        model[0].weight *= torch.logspace(-2, 2, 16)[:, None, None, None]
        model[3].weight /= torch.logspace(-2, 2, 16)[:, None, None, None]
        equal = equalize(model, IMAGE.double())
        torch.testing.assert_close(equal(IMAGE.double()), model(IMAGE.double()), rtol=1e-9, atol=1e-9)
    first, depthwise, pointwise = (equal[i].weight.flatten(1).abs().amax(1) for i in (0, 3, 6))
    torch.testing.assert_close(first, depthwise, rtol=0.01, atol=0)
    torch.testing.assert_close(depthwise, equal[6].weight.abs().amax((0, 2, 3)), rtol=0.01, atol=0)
    assert model[0].weight.flatten(1).abs().amax(1).std() > 10 * first.std()


def test_equalization_stays_inside_residual_blocks():
    model = fold_batchnorm(lived_in(OptionAResNet()), IMAGE).double()
    equal = equalize(model, IMAGE.double())
    with torch.no_grad():
        torch.testing.assert_close(equal(IMAGE.double()), model(IMAGE.double()), rtol=1e-9, atol=1e-9)
    assert torch.equal(equal.conv1.weight, model.conv1.weight)
    assert not torch.equal(equal.layers[0].conv1.weight, model.layers[0].conv1.weight)


def test_no_equalization_through_relu6():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1))
    assert torch.equal(equalize(model, IMAGE)[0].weight, model[0].weight)


def test_bias_correction_restores_the_means_and_comes_nearer():
    model = fold_batchnorm(lived_in(OptionAResNet()), IMAGE)
    quant = quantized(model, observe(model, [IMAGE]), weight_bits=3, first_last_bits=None)
    better = correct_bias(quant, model, IMAGE)
    with torch.no_grad():
        wanted, before, after = model(IMAGE), quant(IMAGE), better(IMAGE)
    torch.testing.assert_close(after.mean(0), wanted.mean(0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before.mean(0), wanted.mean(0), rtol=1e-2, atol=1e-2)
    assert (after - wanted).norm() < 0.8 * (before - wanted).norm()
    assert not torch.equal(better.conv1.bias, quant.conv1.bias)


def test_bias_correction_adds_a_bias_where_there_was_none():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2, bias=False)
    )
    quant = quantized(model, observe(model, [IMAGE]), weight_bits=2, first_last_bits=None)
    better = correct_bias(quant, model, IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(better(IMAGE).mean(0), model(IMAGE).mean(0), rtol=1e-4, atol=1e-4)


def test_sensitivity_predicts_how_far_the_logits_move():
    model = fold_batchnorm(lived_in(separable()), IMAGE)
    observed = observe(model, [IMAGE])
    rises = sensitivity(model, observed, IMAGE, bits=(3, 5, 8))
    assert list(rises) == ["0", "3", "6", "9", "12", "17"]
    assert all(widths[3] > widths[5] > widths[8] > 0 for widths in rises.values())
    for name, widths in rises.items():
        others = [other for other in rises if other != name]
        moved = quantized(model, observed, weight_bits=5, activation_bits=None, first_last_bits=None, skip=others)
        with torch.no_grad():
            change = (moved(IMAGE) - model(IMAGE)).square().sum(1).mean().item()
        assert 0.2 < widths[5] / change < 5, name


def test_bits_are_taken_where_they_hurt_least():
    rises = {"tough": {8: 0.0, 4: 0.1, 2: 0.2}, "touchy": {8: 0.0, 4: 5.0, 2: 50.0}}
    weights = {"tough": 1000, "touchy": 1000}
    assert allocate(rises, weights, max_bytes=2000) == {"tough": 8, "touchy": 8}
    assert allocate(rises, weights, max_bytes=1500) == {"tough": 4, "touchy": 8}
    assert allocate(rises, weights, max_bytes=1250) == {"tough": 2, "touchy": 8}
    assert allocate(rises, weights, max_bytes=750) == {"tough": 2, "touchy": 4}
    with pytest.raises(ConfigError, match="need at least 500 bytes at the lowest number of bits"):
        allocate(rises, weights, max_bytes=499)

"""Learned step quantizers against torch's fixed ones and the gradients of the paper; whole models of all kinds."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn
from torch.nn import functional as F

from potstill.compress.quantize import (
    QuantConv2d,
    QuantLinear,
    StepQuantizer,
    fold_batchnorm,
    observe,
    quantized,
    quantized_layers,
    restored,
)
from potstill.errors import ConfigError
from potstill.progress import Display, use
from tests.compress.nets import FAMILIES, OptionAResNet, family, lived_in, separable

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_are_those_of_torch(bits):
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    weight, step = torch.randn(6, 3, 3, 3), torch.rand(6) / 4 + 0.01
    points = torch.zeros(6, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, step, points, 0, lowest, highest)
    quantizer = StepQuantizer(step.view(-1, 1, 1, 1), lowest, highest)
    torch.testing.assert_close(quantizer(weight), expected)
    assert quantizer.bits == bits
    torch.testing.assert_close(quantizer.encode(weight) * quantizer.scale, expected)
    affine = StepQuantizer(torch.tensor(0.1), -3, 2**bits - 4)
    expected = torch.fake_quantize_per_tensor_affine(weight, 0.1, 3, 0, 2**bits - 1)
    torch.testing.assert_close(affine(weight), expected)
    assert affine.bits == bits


def test_gradients_are_those_of_the_paper():
    """arXiv:1902.08153, equations 3 and 5 and section 2.2, written down from the paper."""
    x = torch.tensor([[0.26, -0.31, 5.0, -7.0, 0.8]], requires_grad=True)
    quantizer, given = StepQuantizer(torch.tensor(0.5), -4, 3), torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    quantizer(x).backward(given)
    assert x.grad.tolist() == [[1.0, 2.0, 0.0, 0.0, 5.0]]
    of_step = torch.tensor([[-0.52 + 1, 0.62 - 1, 3.0, -4.0, -1.6 + 2]])
    expected = (given * of_step).sum() / (5 * 4) ** 0.5
    torch.testing.assert_close(quantizer.step.grad, expected)


def test_each_channel_has_its_own_step_gradient():
    weight = torch.randn(4, 3, 3, 3)
    steps = torch.rand(4, 1, 1, 1) / 3 + 0.05
    together = StepQuantizer(steps, -8, 7)
    together(weight).square().sum().backward()
    for channel in range(4):
        alone = StepQuantizer(steps[channel : channel + 1], -8, 7)
        alone(weight[channel : channel + 1]).square().sum().backward()
        torch.testing.assert_close(together.step.grad[channel], alone.step.grad[0])


def test_learning_finds_the_step():
    """Started far off, the step of a 3-bit quantizer learns to serve normally distributed values."""
    x = torch.randn(64, 256)
    quantizer = StepQuantizer(torch.tensor(3.0), -4, 3)
    start = F.mse_loss(quantizer(x), x).item()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=30.0)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(quantizer(x), x).backward()
        optimizer.step()
    best = min(F.mse_loss(StepQuantizer(step, -4, 3)(x), x).item() for step in torch.arange(0.2, 2, 0.02))
    assert F.mse_loss(quantizer(x), x).item() < best * 1.05 < start


def test_a_step_may_pass_through_zero():
    quantizer = StepQuantizer(torch.tensor(-0.5), -4, 3)
    torch.testing.assert_close(quantizer(torch.tensor([0.6])), torch.tensor([0.5]))
    assert StepQuantizer(torch.tensor(0.0), -4, 3)(torch.randn(5)).isfinite().all()


def test_quantizers_compute_in_float32_under_autocast():
    quantizer, x = StepQuantizer(torch.tensor(0.01), 0, 255), torch.rand(1, 1000) * 2.5
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(quantizer(x), quantizer.encode(x) * 0.01)
        assert quantizer(x.bfloat16()).dtype == torch.bfloat16


LAYERS = [
    nn.Conv2d(4, 6, 3, 2, 1),
    nn.Conv2d(4, 8, 3, dilation=2, groups=2, bias=False),
    nn.Conv2d(4, 4, 3, padding=1, groups=4),
    nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular"),
    Conv2dSame(4, 6, 3, stride=2),
    Conv2dSame(4, 4, 5, stride=3, groups=4, dilation=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [9, 10])
def test_convolutions_compute_with_rounded_weight_and_input(layer, size):
    image = torch.randn(2, 4, size, size + 1)
    model = quantized(nn.Sequential(layer), observe(nn.Sequential(layer), [image]), weight_bits=4, activation_bits=5)
    quant = model[0]
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(quant.weight_quantizer(layer.weight))
    with torch.no_grad():
        torch.testing.assert_close(model(image), plain(quant.input_quantizer(image)))
        assert not torch.allclose(model(image), layer(image))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_at_eight_bits_are_near_float_and_trainable(name):
    model, image = family(name)
    model = fold_batchnorm(model, image)
    quant = quantized(model, observe(model, [image]))
    with torch.no_grad():
        wanted = model(image)
        assert (quant(image) - wanted).norm() < 0.05 * wanted.norm()
    assert len(quantized_layers(quant)) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in quant.modules())
    quant.train()(image).sum().backward()
    layers = quantized_layers(quant).values()
    assert all(layer.weight.grad.any() and layer.weight_quantizer.step.grad is not None for layer in layers)
    again = restored(model, quant.eval().state_dict())
    with torch.no_grad():
        assert torch.equal(again(image), quant(image))


def option_a() -> tuple[nn.Module, torch.Tensor]:
    image = torch.rand(8, 3, 16, 16)
    return fold_batchnorm(lived_in(OptionAResNet()), image), image


def test_bits_go_where_they_were_asked_for():
    model, image = option_a()
    seen = observe(model, [image])
    quant = quantized(
        model, seen, weight_bits=3, activation_bits=5, layer_bits={"layers.0.conv1": 6}, skip=["layers.1.conv2"]
    )
    layers = quantized_layers(quant)
    assert {name: layer.weight_quantizer.bits for name, layer in layers.items()} == {
        "conv1": 8,
        "layers.0.conv1": 6,
        "layers.0.conv2": 3,
        "layers.1.conv1": 3,
        "layers.2.conv1": 3,
        "layers.2.conv2": 3,
        "linear": 8,
    }
    assert [layers[name].input_quantizer.bits for name in ("conv1", "layers.0.conv1", "linear")] == [8, 5, 8]
    assert layers["conv1"].input_quantizer.codes.tolist() == [0, 255]
    assert type(quant.layers[1].conv2) is nn.Conv2d
    weights_only = quantized_layers(quantized(model, seen, activation_bits=None, first_last_bits=None, weight_bits=2))
    assert all(layer.input_quantizer is None and layer.weight_quantizer.bits == 2 for layer in weights_only.values())
    assert not quantized_layers(model)


@pytest.mark.parametrize("weight_bits", range(2, 9))
def test_fewer_bits_are_further_from_float(weight_bits):
    model = fold_batchnorm(lived_in(separable()), torch.rand(2, 3, 16, 16))
    image = torch.rand(8, 3, 16, 16)
    seen = observe(model, [image])
    with torch.no_grad():
        near, far = (
            (quantized(model, seen, weight_bits=b, first_last_bits=None)(image) - model(image)).norm()
            for b in (weight_bits, max(weight_bits - 2, 2))
        )
    assert near <= far
    weight = quantized(model, seen, weight_bits=weight_bits, first_last_bits=None)[3]
    assert len(weight.weight_quantizer.encode(weight.weight).unique()) <= 2**weight_bits


def test_training_recovers_what_rounding_lost():
    model, image = option_a()
    quant = quantized(model, observe(model, [image]), weight_bits=3, activation_bits=4, first_last_bits=None)
    wanted = model(image).detach()
    optimizer = torch.optim.Adam(quant.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(quant(image), wanted)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_shared_layer_stays_shared_and_a_lone_layer_works():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    quant = quantized(model, observe(model, [torch.randn(5, 4)]))
    assert quant[0] is quant[2] and isinstance(quant[0], QuantLinear)
    lone = quantized(layer, observe(layer, [torch.randn(5, 4)]))
    assert isinstance(lone, QuantLinear)
    assert torch.equal(restored(layer, lone.state_dict())(torch.ones(1, 4)), lone(torch.ones(1, 4)))


def test_layers_left_in_float_are_told():
    class Some(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x))

    model = Some(nn.Conv2d(3, 4, 1), StdConv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    with use(Display()) as shown:
        quant = quantized(model, observe(model, [torch.rand(1, 3, 4, 4)]))
    assert isinstance(quant[0], QuantConv2d)
    assert [type(quant[1]), type(quant[2])] == [StdConv2d, nn.Conv2d]
    assert any("The layer 1 (StdConv2d)" in note for note in shown.notes)
    assert any("The layer 2 did not run" in note for note in shown.notes)


def test_wrong_settings_are_refused_all_at_once():
    model = nn.Sequential(nn.Linear(2, 2))
    seen = observe(model, [torch.rand(3, 2)])
    with pytest.raises(ConfigError) as error:
        quantized(model, seen, weight_bits=9, activation_bits=1)
    assert error.value.problems == [
        "weight_bits must be 2 to 8, but is 9.",
        "activation_bits must be 2 to 8, but is 1.",
    ]
    with pytest.raises(ConfigError, match="not 'entropie'. Did you mean 'entropy'"):
        quantized(model, seen, activation_method="entropie")
    with pytest.raises(ConfigError, match="no layer '1'"):
        quantized(model, seen, skip=["1"])
    with pytest.raises(ConfigError, match="layer_bits of 0 must be 2 to 8, but is 1"):
        quantized(model, seen, layer_bits={"0": 1})

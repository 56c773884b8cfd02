"""Networks divided by their data flow, and weights rounded block by block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.compress.quantize import (
    Reconstruction,
    fold_batchnorm,
    observe,
    pack,
    quantized,
    quantized_layers,
    reconstruct,
    restored,
    unpack,
)
from potstill.models.inspect.segments import segments
from tests.compress.nets import FAMILIES, OptionAResNet, family, lived_in, separable

IMAGE = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SHORT = Reconstruction(steps=20, batch=16)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Twice(nn.Module):
    """Two results, so that the data flow does not end in one tensor; the second layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.first(x).relu()
        y = self.second(x)
        return {"a": y, "b": self.second(y).mean((2, 3))}


def error(model: nn.Module, wanted: torch.Tensor) -> float:
    with torch.no_grad():
        return ((model(IMAGE) - wanted).norm() / wanted.norm()).item()


def test_segments_are_the_residual_blocks() -> None:
    model = fold_batchnorm(lived_in(OptionAResNet()), IMAGE[:4])
    layers = [part.layers for part in segments(model, IMAGE[:4])]
    blocks = [[f"layers.{block}.conv1", f"layers.{block}.conv2"] for block in range(3)]
    assert layers == [["conv1"], *blocks, ["linear"]]


def test_a_depthwise_layer_is_joined_to_the_next() -> None:
    model = fold_batchnorm(lived_in(separable()), IMAGE[:4])
    parts = segments(model, IMAGE[:4], joined=lambda layer: getattr(layer, "groups", 1) == 16)
    assert [part.layers for part in parts] == [["0"], ["3", "6"], ["9"], ["12"], ["17"]]


@pytest.mark.parametrize("name", FAMILIES)
def test_segments_repeat_what_a_network_computes(name: str) -> None:
    model, image = family(name)
    parts = segments(model, image)
    result, other = image, torch.rand_like(image)
    kept = other.clone()
    with torch.no_grad():
        for part in parts:
            result, other = part.run(result), part.run(other)
        torch.testing.assert_close(result, model(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other, model(kept), rtol=1e-4, atol=1e-5)
    assert len(parts) > 3 and all(part.layers for part in parts)


def test_a_segment_runs_with_other_layers_and_keeps_its_input() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    (part,) = segments(model, IMAGE[:, :, 0, :3])
    given, double = torch.tensor([[-1.0, 2, 3]] * 64), nn.Linear(3, 2)
    with torch.no_grad():
        double.weight.copy_(2 * model[1].weight)
        double.bias.copy_(2 * model[1].bias)
        torch.testing.assert_close(part.run(given, {"1": double}), 2 * part.run(given))
    assert given[0, 0] == -1


@pytest.mark.parametrize("activations", [None, 4])
@pytest.mark.parametrize("net", [OptionAResNet, separable])
def test_reconstruction_halves_the_error_on_the_grid(net, activations: int | None) -> None:
    model = fold_batchnorm(lived_in(net()), IMAGE[:2])
    options = {"weight_bits": 3, "activation_bits": activations, "first_last_bits": None, "weight_method": "mse"}
    rounded = quantized(model, observe(model, [IMAGE]), **options)
    before = {name: value.clone() for name, value in rounded.state_dict().items()}
    better = reconstruct(rounded, model, IMAGE, SHORT)
    wanted = model(IMAGE).detach()
    assert error(better, wanted) < 0.75 * error(rounded, wanted)
    assert all(torch.equal(value, before[name]) for name, value in rounded.state_dict().items())
    for layer in quantized_layers(better).values():
        torch.testing.assert_close(layer.weight, layer.weight_quantizer(layer.weight))
    torch.testing.assert_close(restored(model, unpack(pack(better)))(IMAGE), better(IMAGE))


def test_reconstruction_is_the_same_for_a_seed() -> None:
    model = fold_batchnorm(lived_in(separable()), IMAGE[:2])
    rounded = quantized(model, observe(model, [IMAGE]), weight_bits=3)
    first, again = (reconstruct(rounded, model, IMAGE, SHORT).state_dict() for _ in range(2))
    other = reconstruct(rounded, model, IMAGE, Reconstruction(steps=20, batch=16, seed=1)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["6.weight"], other["6.weight"])


def test_layers_are_reconstructed_alone_where_no_blocks_are_found(caplog: pytest.LogCaptureFixture) -> None:
    model = Twice()
    rounded = quantized(model, observe(model, [IMAGE]), weight_bits=2, activation_bits=None, first_last_bits=None)
    caplog.set_level("INFO", "potstill")
    better = reconstruct(rounded, model, IMAGE, SHORT)
    assert "every layer is reconstructed by itself" in caplog.text
    assert torch.equal(better.second.weight, rounded.second.weight)  # runs twice
    wanted = model.first(IMAGE).detach()
    with torch.no_grad():
        assert (better.first(IMAGE) - wanted).norm() < 0.8 * (rounded.first(IMAGE) - wanted).norm()

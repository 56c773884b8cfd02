"""Folding must not change what a model computes, and must not touch what it cannot fold."""

from __future__ import annotations

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.compress.quantize import fold_batchnorm
from tests.compress.nets import FAMILIES, OptionAResNet, family, lived_in, separable


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def assert_folds_to(model: nn.Module, image: torch.Tensor, left: int) -> nn.Module:
    """In float64 the folded model gives the same numbers; `left` BatchNorms remain; the original is untouched."""
    model = lived_in(model).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batchnorm(model, image.double())
    with torch.no_grad():
        torch.testing.assert_close(folded(image.double()), model(image.double()), rtol=1e-10, atol=1e-10)
    assert norms(folded) == left
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return folded


@pytest.mark.parametrize("name", FAMILIES)
def test_families_fold_completely(name):
    model, image = family(name)
    assert_folds_to(model, image, left=0)


def test_option_a_and_grouped_convolutions_fold():
    assert_folds_to(OptionAResNet(), torch.rand(2, 3, 16, 16), left=0)
    assert_folds_to(separable(), torch.rand(2, 3, 16, 16), left=0)


def test_linear_layers_fold():
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 2))
    folded = assert_folds_to(model, torch.rand(3, 5), left=0)
    assert isinstance(folded[1], nn.Identity)


class PreActivation(nn.Module):
    """The shortcut reads the convolution's output before BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x).relu()


class Shared(nn.Module):
    """One convolution, a BatchNorm for each of its two runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


class Returned(PreActivation):
    def forward(self, x):
        x = self.conv(x)
        return self.norm(x), x


def test_a_batchnorm_is_kept_where_others_read_the_same_tensor():
    image = torch.rand(2, 3, 4, 4)
    assert_folds_to(PreActivation(), image, left=1)
    assert_folds_to(Shared(), image, left=2)
    assert_folds_to(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1)), image, left=1)
    assert_folds_to(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)), image, left=1)
    assert norms(fold_batchnorm(Returned(), image)) == 1


def test_a_batchnorm_without_statistics_is_kept():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert norms(fold_batchnorm(model, torch.rand(2, 3, 4, 4))) == 1


def test_activations_inside_a_batchnorm_survive():
    model, image = family("mobilenetv3_small_050")
    folded = fold_batchnorm(model, image)
    assert isinstance(folded.blocks[0][0].bn1[1], nn.ReLU)

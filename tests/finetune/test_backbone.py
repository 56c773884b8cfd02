"""Pretrained networks: whose normalisation counts, and what is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import potstill
from potstill import progress
from potstill.errors import ConfigError, ModelError, UserError
from potstill.model_files.folder import load_model, save_model
from potstill.models import hub, zoo
from potstill.stages.finetune.backbone import backbone, side_of
from potstill.stages.finetune.lazy_data import Images
from tests.finetune.world import MEAN, SIDE, STD, settings


def made(tree: Path, weights: Path | None, **changes: Any):
    config = settings(tree, weights, **changes)
    return backbone(config, Images(config.data, side_of(config)))


def test_everything_but_the_head_comes_from_the_file(tree: Path, weights: Path) -> None:
    found, given = made(tree, weights), load_file(weights)
    own = found.network.state_dict()
    assert [name for name in own if not torch.equal(own[name], given.get(name, own[name] + 1))] == [
        "fc.weight",
        "fc.bias",
    ]
    assert own["fc.weight"].shape[0] == 3
    assert (found.card.mean, found.card.std, found.card.size) == (MEAN, STD, (SIDE, SIDE))
    assert found.card.source == "resnet18.safetensors"


def test_weights_without_a_card_ask_for_the_normalisation(tree: Path, weights: Path) -> None:
    with pytest.raises(ModelError, match=r"has no card.*--mean 0\.485,0\.456,0\.406 --std .* --size 224"):
        made(tree, weights, mean=None, std=None)


def test_an_unusual_normalisation_is_taken_and_told(tree: Path, weights: Path) -> None:
    assert made(tree, weights, mean=(0.5,) * 3, std=(0.5,) * 3).card.mean == (0.5, 0.5, 0.5)
    assert any("use --mean 0.485" in note for note in progress.display().notes)


def test_the_card_of_a_saved_model_is_used_and_may_not_be_contradicted(
    tree: Path, weights: Path, tmp_path: Path
) -> None:
    saved = made(tree, weights, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_model(saved, tmp_path)
    again = made(tree, None, model=str(tmp_path), options={})
    assert again.card.mean == (0.5, 0.5, 0.5) and again.card.model == "resnet18"
    with pytest.raises(ModelError, match="contradicts the card of .* mean 0.5,0.5,0.5"):
        made(tree, None, model=str(tmp_path), options={}, mean=MEAN, std=STD)
    with pytest.raises(ConfigError, match="contains weights"):
        made(tree, weights, model=str(tmp_path), options={})


def test_the_card_of_another_file_does_not_count(tree: Path, weights: Path, tmp_path: Path) -> None:
    save_model(made(tree, weights), tmp_path)
    card = json.loads((tmp_path / zoo.CARD).read_text())
    (tmp_path / zoo.CARD).write_text(json.dumps({**card, "weights_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="has no card"):
        made(tree, tmp_path / zoo.WEIGHTS, mean=None, std=None)


def test_a_network_of_colour_photos_takes_grey_images(tmp_path: Path) -> None:
    """Its first layer keeps three channels, in which a grey image is repeated: not only for networks of timm."""
    colour = zoo.create("builtin:resnet8-cifar", classes=("a", "b"), size=(16, 16), channels=3, seed=1)
    save_file(colour.network.state_dict(), tmp_path / "colour.safetensors")
    out = potstill.finetune(
        {"path": "digits", "limit": 60},
        model="builtin:resnet8-cifar",
        weights=tmp_path / "colour.safetensors",
        mean=MEAN,
        std=STD,
        unfreeze="none",
        views=0,
        out=tmp_path / "run",
    )
    model = load_model(tmp_path / "run")
    assert model.card.channels == 3 and model.card.mean == MEAN and out.summary["data"]["image"]["channels"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "divide values for 0..255 by 255"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "one value per channel"),
        ({"std": None}, "mean and std must be given together"),
        ({"from_scratch": True}, "exclude each other"),
        ({"model": "resnet18x"}, "There is no model 'resnet18x'. Did you mean 'resnet18"),
        ({"model": "model.onnx"}, "is an exported file, which cannot be trained"),
        ({"unfreeze": -1}, "^unfreeze: must be none, all or the number"),
        ({"unfreeze": "two"}, "^unfreeze: must be none, all or the number of last stages to fine-tune, but is two"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tree: Path, weights: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(tree, weights, **changes)


def test_an_absent_file_is_told(tree: Path) -> None:
    with pytest.raises(ModelError, match="There is no file nowhere.safetensors"):
        made(tree, Path("nowhere.safetensors"))


def test_a_truncated_file_and_a_network_of_another_kind_are_refused(tree: Path, weights: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    short.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="truncated or damaged"):
        made(tree, short)
    whole = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), whole)
    with pytest.raises(ModelError, match="0 tensors matching"):
        made(tree, whole)


def test_what_is_no_file_of_weights_is_told(tree: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        made(tree, tmp_path)
    other = tmp_path / "weights.npz"
    other.write_bytes(b"PK")
    with pytest.raises(ModelError, match="not a file of weights: supported are .safetensors, .pth"):
        made(tree, other)
    with pytest.raises(ModelError, match="does not contain the name of its network"):
        made(tree, weights, model=str(weights))
    state = load_file(weights)
    state["layer1.0.conv1.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"contains NaN, first in 'layer1.0.conv1.weight' \(1 of 128"):
        made(tree, tmp_path / "nan.safetensors")


def test_missing_and_unexpected_names_are_counted(tree: Path, weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    state["surprise"] = state.pop("layer4.1.conv2.weight")
    file = tmp_path / "odd.safetensors"
    save_file(state, file)
    with pytest.raises(ModelError, match=r"1 missing \(first 'layer4.1.conv2.weight'\), 1 unexpected"):
        made(tree, file)


def test_without_a_network_and_weights_there_is_one_sentence(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    with pytest.raises(ModelError, match="could not be downloaded.*--weights FILE"):
        made(tree, None, options={})
    with pytest.raises(ModelError, match="There are no published weights for 'builtin:cnn'"):
        made(tree, None, model="builtin:cnn", options={})


def test_a_shallower_network_starts_with_blocks_of_a_deeper_one(tree: Path, tmp_path: Path) -> None:
    deep = zoo.create("builtin:resnet56-cifar", classes=tuple("abcd"), size=(SIDE, SIDE), seed=1).network.state_dict()
    save_file(deep, tmp_path / "deep.safetensors")
    blocks = Path(f"blocks:{tmp_path / 'deep.safetensors'}")
    found = made(tree, blocks, model="builtin:resnet20-cifar", options={}).network.state_dict()
    assert torch.equal(found["layer3.1.conv1.weight"], deep["layer3.4.conv1.weight"])
    with pytest.raises(ModelError, match="27 blocks|Or start with some of its blocks"):
        made(tree, tmp_path / "deep.safetensors", model="builtin:resnet20-cifar", options={})

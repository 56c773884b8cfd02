"""Checkpoints as training scripts save them: read without executing anything, or refused with what to do."""

from __future__ import annotations

import argparse
import collections
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potstill.errors import ModelError
from potstill.models import zoo
from potstill.models.input_facts import class_count
from potstill.models.outputs import Classifier

NAME = "builtin:small-cnn"


def network(seed: int = 0) -> Classifier:
    return zoo.create(NAME, classes=("a", "b"), size=(16, 16), channels=3, seed=seed)


STATE = network().network.state_dict()


def under(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


READ = {
    "orig_mod.pth": under("_orig_mod."),
    "both.pth": under("_orig_mod.module."),
    "lightning.ckpt": {"state_dict": under("model."), "epoch": 3, "pytorch-lightning_version": "2.0"},
    "extra.ckpt": {"state_dict": {**under("net."), "criterion.weight": torch.ones(2), "train_acc.tp": torch.zeros(1)}},
    "moco.pth": {"state_dict": under("module.encoder_q.")},
    "namespace.pth": {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "epoch": 3},
    "scalar.pth": {"state_dict": STATE, "best": np.float64(0.9)},
    "array.pth": {"model": STATE, "names": np.array(["a", "b"])},
    "defaultdict.pth": {"model": STATE, "history": collections.defaultdict(list, loss=[1.0])},
    "path.pth": {"model": STATE, "data": Path("data")},
    "UPPER.PTH": STATE,
    "weights.pkl": STATE,
    "weights.pyth": {"model_state": STATE},
    "key.pth": {"epoch": 1, "student": {"module": STATE}, "optimizer": {"state": {0: {"momentum": torch.ones(9)}}}},
    "pairs.pth": list(STATE.items()),
    "whole.pt": network().network,
}


@pytest.mark.parametrize("name", READ)
def test_the_tensors_are_read(tmp_path: Path, name: str) -> None:
    torch.save(READ[name], tmp_path / name)
    loaded = zoo.create(NAME, classes=("a", "b"), size=(16, 16), channels=3, weights=tmp_path / name, seed=5)
    assert all(torch.equal(loaded.network.state_dict()[key], value) for key, value in STATE.items())


@pytest.mark.parametrize("prefix", ["", "net.", "module.backbone."])
def test_classes_are_counted_whatever_the_tensors_are_called(tmp_path: Path, prefix: str) -> None:
    shapes = zoo.create("mobilenetv3_small_050", classes=tuple("abcde")).network.state_dict()
    beside = {"criterion.weight": torch.ones(2)} if prefix else {}
    torch.save({"state_dict": {prefix + name: value for name, value in shapes.items()} | beside}, tmp_path / "x.ckpt")
    assert class_count("mobilenetv3_small_050", tmp_path / "x.ckpt") == 5


def itself() -> dict:
    loop: dict = {"epoch": 1}
    loop["model"] = loop
    return loop


REFUSED = {
    "optimizer.pth": ({"optimizer": {"state": {"a": torch.ones(2)}}, "epoch": 1}, "does not hold named tensors"),
    "itself.pth": (itself(), "does not hold named tensors"),
    "inf.pth": ({**STATE, next(iter(STATE)): next(iter(STATE.values())) / 0}, "contains (infinity|NaN)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_usable_tensors_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(REFUSED[name][0], tmp_path / name)
    with pytest.raises(ModelError, match=REFUSED[name][1]):
        zoo.create(NAME, classes=("a", "b"), size=(16, 16), channels=3, weights=tmp_path / name)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_program_is_named_with_how_to_save_its_tensors(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(ModelError, match="TorchScript program, which is not executed. Save its tensors: python -c"):
        zoo.read_state(tmp_path / "script.pt")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46830571\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        zoo.read_state(tmp_path / "w.pth")


def test_an_archive_that_would_fill_the_memory_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", bytes(20_000_000))
    with pytest.raises(ModelError, match="unpacks to 20 MB, which torch.save never writes"):
        zoo.read_state(tmp_path / "w.pth")

"""Whole runs with uncommon teachers and students: what the summary says of them, and that the road goes through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import potstill
from potstill.model_files.folder import load_model
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.freeze import bits
from tests.test_road import TRAIN, recipe, write_tree

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def run(tree: Path, out: Path, **settings: Any) -> dict[str, Any]:
    plain = {"seeds": 1, "comparisons": {}, "export": {"int8": False}, **settings}
    done = potstill.run(recipe(tree, **plain), out=out).summary
    assert (out / "report.html").is_file() and (out / "student.onnx").is_file()
    assert json.loads((out / "summary.json").read_text())["models"] == done["models"]
    return done


def test_answers_without_the_test_images(tree: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = sorted(str(path.relative_to(tree)) for path in (tree / "train").rglob("*.png"))
    p = random.dirichlet([0.3] * 3, len(names))
    lines = [f"{name},{','.join(map(str, row))}" for name, row in zip(names, p, strict=True)]
    (tmp_path / "noise.csv").write_text("\n".join(["image,circle,cross,stripes", *lines]))
    student = {"model": "builtin:small-cnn", "options": {"width": 4}, "aux": ["stage1"]}
    done = run(tree, tmp_path / "run", teacher={"model": str(tmp_path / "noise.csv")}, student=student)
    assert done["models"]["teacher"] == {"name": str(tmp_path / "noise.csv")}
    assert any("all views of an image have the same one" in note for note in done["notes"])
    again = potstill.evaluate(tmp_path / "run" / "student.onnx", tree)
    assert again.accuracy == done["models"]["student"]["test_accuracy"][0]


def test_simkd_counts_what_it_borrows_in_every_figure(tree: Path, tmp_path: Path) -> None:
    done = run(
        tree, tmp_path / "run",
        teacher={"model": "builtin:small-cnn", "options": {"width": 8}, "train": TRAIN},
        student={"model": "builtin:small-cnn", "options": {"width": 4}},
        objective={"terms": [{"loss": "simkd"}]},
    )  # fmt: skip
    models = done["models"]
    extra = 32 * 32 + 32 * 32 * 9 + 32 * 64 + 2 * (32 + 32 + 64) + (64 - 32) * 3
    assert models["student"]["parameters"] == models["control"]["parameters"] + extra
    assert models["student"]["bytes"] > models["control"]["bytes"] + 4 * extra * 0.9
    assert done["export"]["student"]["max_logit_difference"] < 1e-3


def test_an_ensemble_at_the_head_of_a_chain(tree: Path, tmp_path: Path) -> None:
    members = [{"model": "builtin:mlp", "options": {"hidden": 8}}, {"model": "builtin:mlp", "weight": 2}]
    chain = {"ensemble": members, "assistants": [{"model": "builtin:mlp", "options": {"hidden": 12}}], "train": TRAIN}
    done = run(tree, tmp_path / "run", teacher=chain)
    told = done["models"]["teacher"]
    assert [(one["name"], one["weight"]) for one in told["members"]] == [("builtin:mlp", 1.0), ("builtin:mlp", 2.0)]
    assert [one["name"] for one in told["chain"]] == ["builtin:mlp"] and told["chain"][0]["steps"] > 0
    assert isinstance(told["accuracy"], float) and told["parameters"] == 12 * 12 * 3 * 12 + 12 + 12 * 3 + 3
    assert any("which the control does not have" in note for note in done["notes"])


def test_an_ensemble_alone_and_a_peer(tree: Path, tmp_path: Path) -> None:
    members = [{"model": "builtin:mlp", "options": {"hidden": 8}}, {"model": "builtin:mlp"}]
    done = run(tree, tmp_path / "several", teacher={"ensemble": members, "train": TRAIN})
    told = done["models"]["teacher"]
    assert told["name"] == "builtin:mlp + builtin:mlp" and "bytes" not in told and told["accuracy"] > 0
    first = load_model(tmp_path / "several" / "distill" / "seed-0")
    assert bits(find(str(tmp_path / "several"))) == bits(first)  # the student of a run teaches on
    done = run(tree, tmp_path / "peer", teacher={"model": "builtin:mlp", "mutual": True})
    assert isinstance(done["models"]["teacher"]["accuracy"], float)
    peer = load_model(tmp_path / "peer" / "distill" / "seed-0" / "peer")
    assert zoo.count_parameters(peer) == 12 * 12 * 3 * 25 + 25 + 25 * 3 + 3


def test_a_truncated_student_with_weights_for_other_classes(tree: Path, tmp_path: Path) -> None:
    """Control and student start from everything below the head, at the student's own size, and the files take it."""
    whole = zoo.create("builtin:small-cnn", classes=tuple("abcdefg"), options={"width": 4}, size=(8, 8), seed=9)
    save_file(whole.network.state_dict(), tmp_path / "w.safetensors")
    student = {
        "model": "builtin:small-cnn@stage2",
        "options": {"width": 4},
        "weights": str(tmp_path / "w.safetensors"),
        "size": 8,
    }
    train = {**TRAIN, "epochs": 1, "lr": 1e-12, "weight_decay": 0}
    done = run(
        tree, tmp_path / "run", student=student, train=train, teacher={"model": "builtin:mlp", "train": TRAIN},
        export={"int8": True, "calibration": 8},
    )  # fmt: skip
    models = [load_model(tmp_path / "run" / kind / "seed-0") for kind in ("control", "distill")]
    for model in models:
        assert model.card.model == "cut:builtin:small-cnn" and model.card.size == (8, 8)
        assert torch.allclose(model.network.body.stem.conv.weight, whole.network.stem.conv.weight, atol=1e-6)
        assert torch.allclose(model.network.head.weight, models[0].network.head.weight, atol=1e-6)
    for role in ("student", "student_int8"):
        assert done["export"][role]["agreement"] > 90
    again = potstill.evaluate(tmp_path / "run" / "student_int8.onnx", tree)
    assert again.accuracy == done["models"]["student_int8"]["test_accuracy"][0]

"""Terms with parameters: they resume bit for bit, and what SimKD delivers is what is saved, counted and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from potstill.errors import ConfigError
from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.class_map import match_classes, speaking
from potstill.models.freeze import bits
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.heads_and_norms import batch_norm_before, before_relu
from potstill.models.inspect.taps import resolve
from potstill.objectives.objective import Objective, Term
from potstill.teachers.live import LiveTeacher
from potstill.training import engine
from potstill.training.loop import TrainingLoop
from tests.distill.lessons import CLASSES, SHORT, answers, model, order, teach, teacher, wired, world

LEARNED = [
    Term(loss="crd", options={"negatives": 32, "width": 8}),
    Term(loss="ctkd"),
    Term(loss="vid"),
    Term(loss="reviewkd", on=("stage2", "stage3"), options={"width": 4}),
    Term(loss="srrl", name="regression.v2"),
]


class Killed(BaseException):
    """Stands for a power cut between two steps."""


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 7])
def test_killed_and_started_again_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    straight, whole = teach(LEARNED, model("small-cnn", width=4), teacher(), tmp_path / "straight", config=SHORT)
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)  # after every step
    save, calls = TrainingLoop.save_now_and_then, []

    def dies(self: TrainingLoop, every: float) -> None:
        save(self, every)
        calls.append(1)
        if len(calls) == kill_at:
            raise Killed

    monkeypatch.setattr(TrainingLoop, "save_now_and_then", dies)
    with pytest.raises(Killed):
        teach(LEARNED, model("small-cnn", width=4), teacher(), tmp_path / "killed", config=SHORT)
    resumed, rest = teach(LEARNED, model("small-cnn", width=4), teacher(), tmp_path / "killed", config=SHORT)
    assert bits(resumed) == bits(straight)
    assert [row["train"] for row in rest.rows] == [row["train"] for row in whole.rows]
    assert len(calls) == SHORT.epochs * order(world()).steps_per_epoch


def test_every_parameter_of_the_objective_is_trained(tmp_path: Path) -> None:
    network = teacher()
    wiring = wired(LEARNED, model("small-cnn", width=4), network)
    live = LiveTeacher(network.replace(taps=wiring.taps))
    objective = Objective(LEARNED, classes=3, teacher=live, connections=wiring.connections)
    before = {name: value.clone() for name, value in objective.learned.named_parameters()}
    assert len({name.partition(".")[0] for name in before}) == len(LEARNED)
    engine.fit(wiring.student, objective, world(), order(world()), SHORT, folder=tmp_path, seed=0)
    assert [name for name, value in objective.learned.named_parameters() if torch.equal(value, before[name])] == []


def test_new_layers_depend_on_the_seed_alone() -> None:
    def drawn(seed: int) -> str:
        wiring = wired(LEARNED, model("small-cnn", width=4), teacher(), seed=seed)
        return bits(nn.ModuleList(connection.function for connection in wiring.connections.values()))

    assert drawn(3) == drawn(3) != drawn(4)


@pytest.mark.slow
def test_simkd_delivers_the_teachers_classifier_and_counts_it(tmp_path: Path) -> None:
    plain, network = model("small-cnn", width=4), teacher()
    student, _ = teach([Term(loss="simkd")], plain, network, tmp_path)
    bridge = 32 * 32 + 32 * 32 * 9 + 32 * 64 + 2 * (32 + 32 + 64)
    own_head, borrowed = 32 * 3 + 3, 64 * 3 + 3
    assert zoo.count_parameters(student) == zoo.count_parameters(plain) - own_head + bridge + borrowed
    assert torch.equal(student.network.head.weight, network.network.head.weight)
    assert (answers(student).argmax(1) == answers(network).argmax(1)).mean() > 0.65
    save_model(student, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert np.array_equal(answers(loaded), answers(student))
    assert zoo.count_parameters(loaded) == zoo.count_parameters(student)
    export_onnx(loaded, tmp_path / "student.onnx")
    assert np.abs(answers(OnnxModel(tmp_path / "student.onnx")) - answers(student)).max() < 1e-3


def test_simkd_through_another_resolution(tmp_path: Path) -> None:
    small = model("resnet20-cifar", width=4)  # ends at 2x2, the teacher at 4x4
    student, _ = teach([Term(loss="simkd")], small, teacher(), tmp_path / "small", config=SHORT)
    assert student.network.size == (4, 4)
    early = [Term(loss="simkd", on="layer1", teacher_on="stage:-1")]  # at 8x8
    big, _ = teach(early, small, teacher(), tmp_path / "big", config=SHORT)
    image = torch.rand(2, 1, 8, 8)
    feature = big.eval()(image).features["projected"]
    assert feature.shape == (2, 64, 4, 4)
    assert torch.allclose(big(image).logits, big.network.head(feature.mean((2, 3))), atol=1e-6)


def test_the_place_before_a_relu() -> None:
    network = model("resnet20-cifar", width=4).eval()
    (tap,) = resolve(network, ["stage:-1"])
    place = before_relu(trace(network), tap)
    said = network.replace(taps=(tap, place))(torch.rand(2, 1, 8, 8)).features
    assert place.path == "layer3.2.relu2" and said[place.name].min() < 0
    assert torch.equal(F.relu(said[place.name]), said["stage:-1"])
    assert batch_norm_before(trace(network), place) is network.network.layer3[2].bn2


def test_a_relu_that_is_used_twice_and_writes_in_place() -> None:
    network = zoo.create("torchvision:resnet18", classes=CLASSES, size=(32, 32)).eval()
    (tap,) = resolve(network, ["layer2"])
    place = before_relu(trace(network), tap)
    said = network.replace(taps=(tap, place))(torch.rand(1, 3, 32, 32)).features
    assert said[place.name].min() < 0 and torch.equal(F.relu(said[place.name]), said["layer2"])


def test_simkd_keeps_the_classifier_of_a_teacher_with_other_classes() -> None:
    theirs = ("fish", *reversed(CLASSES))
    network = zoo.create(
        "builtin:small-cnn", classes=theirs, size=(8, 8), channels=1, options={"width": 8}, seed=3
    ).eval()  # fmt: skip
    mapped = speaking(network, match_classes(theirs, CLASSES, who="T"), CLASSES)
    student = wired([Term(loss="simkd")], model("small-cnn", width=4), mapped).student
    assert torch.equal(student.network.head.weight, network.network.head.weight[[3, 2, 1]])
    fewer = ("cross", "circle")
    small = zoo.create("builtin:small-cnn", classes=fewer, size=(8, 8), channels=1, seed=3).eval()
    unknown = speaking(small, match_classes(fewer, CLASSES, who="T"), CLASSES)
    with pytest.raises(ConfigError, match="some of the data's classes match no teacher class"):
        wired([Term(loss="simkd")], model("small-cnn", width=4), unknown)

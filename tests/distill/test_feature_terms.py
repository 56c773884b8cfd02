"""Terms on features: every loss, every kind of tap, and what is said where two networks cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potstill import own_code
from potstill.errors import ConfigError
from potstill.losses import SPECS
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, Term, control_terms
from potstill.teachers.live import LiveTeacher
from tests.distill.lessons import CLASSES, SHORT, answers, losses, mixing, model, order, teach, teacher, wired

pytestmark = pytest.mark.slow

ON_FEATURES = sorted(name for name, spec in SPECS.items() if spec.on != "logits")
ON_LOGITS = sorted(set(SPECS) - set(ON_FEATURES) - {"cross_entropy", "mlld"})
OPTIONS = {"crd": {"negatives": 64, "width": 16}, "dkd": {"beta": 1.0, "temperature": 1.0}}
THREE = ("stage1", "stage2", "stage3")


def term(loss: str, **settings: object) -> Term:
    return Term(
        loss=loss, options=OPTIONS.get(loss, {}), **({"on": THREE} if SPECS[loss].on == "layers" else {}) | settings
    )


@pytest.mark.parametrize("loss", [*ON_FEATURES, "mlld"])  # whose relations alone do not say which class is which
def test_a_loss_falls_and_leaves_the_teacher_alone(tmp_path: Path, loss: str) -> None:
    student, fitted = teach([term(loss)], model("small-cnn", width=4), teacher(), tmp_path, config=SHORT)
    fell = losses(fitted, loss)
    assert all(np.isfinite(fell)) and fell[-1] < 0.9 * fell[0], fell


@pytest.mark.parametrize("loss", ON_LOGITS)
def test_a_loss_on_logits_brings_the_student_to_the_teachers_opinion(tmp_path: Path, loss: str) -> None:
    network, student = teacher(), model("mlp", hidden=16)
    said = answers(network).argmax(1)
    before = (answers(student).argmax(1) == said).mean()
    student, _ = teach([term(loss)], student, network, tmp_path)
    after = (answers(student).argmax(1) == said).mean()
    assert after > before + 0.2 and after > 0.9, (before, after)


TAPS = [
    ("stage:-1", "stage:-1"),  # map to map
    ("stage2", "stage3.1.pointwise"),  # paths
    ("pooled", "stage:-1"),  # vector to map
    ("stage:-1", "pooled"),
    ("stage:1/1", "stage:1"),
]


@pytest.mark.parametrize(("on", "there"), TAPS)
def test_every_kind_of_tap_within_a_family_of_networks(tmp_path: Path, on: str, there: str) -> None:
    terms = [term("feature_mse", on=on, teacher_on=there)]
    _, fitted = teach(terms, model("small-cnn", width=4), teacher(), tmp_path, config=SHORT)
    assert losses(fitted)[-1] < 0.8 * losses(fitted)[0]


def transformer(seed: int = 1) -> Classifier:
    options = {"embed_dim": 12, "depth": 2, "num_heads": 2, "patch_size": 4}
    return zoo.create(
        "vit_tiny_patch16_224", classes=CLASSES, size=(8, 8), channels=1, options=options, seed=seed
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("direction", "loss"),
    [
        *(("to a transformer", loss) for loss in ("feature_mse", "vid", "at", "srrl", "rkd", "ickd")),
        *(("from a transformer", loss) for loss in ("feature_mse", "at", "srrl")),
        *(("among transformers", loss) for loss in ("feature_mse", "at", "srrl")),
    ],
)
def test_maps_and_tokens_teach_each_other(tmp_path: Path, loss: str, direction: str) -> None:
    student = model("small-cnn", width=4) if direction.startswith("from") else transformer()
    network = teacher() if direction.startswith("to") else transformer(seed=5).eval()
    _, fitted = teach([term(loss)], student, network, tmp_path, config=SHORT)
    assert losses(fitted)[-1] < losses(fitted)[0]


@pytest.mark.parametrize("there", ["tokens", "stage:1/2", "blocks.0.mlp", "pooled"])
def test_tokens_by_every_name(tmp_path: Path, there: str) -> None:
    terms = [term("feature_mse", on="stage:-1", teacher_on=there)]
    _, fitted = teach(terms, model("small-cnn", width=4), transformer(seed=5).eval(), tmp_path, config=SHORT)
    assert losses(fitted)[-1] < losses(fitted)[0]


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_features_of_mixed_images_are_the_teachers_features_of_mixed_images(tmp_path: Path, mix: str) -> None:
    terms, network, loader = [term("at"), term("kd")], teacher(), mixing(mix)
    wiring = wired(terms, teacher(), network, mixed=True)
    live = LiveTeacher(network.replace(taps=wiring.taps))
    objective = Objective(terms, classes=3, teacher=live, connections=wiring.connections)
    batch = loader.train_batch(order(loader), 3)
    said = objective(wiring.student.eval()(batch.mixed_image()), batch)
    assert said["at"] < 1e-9 and said["kd"] > 1e-4


def test_the_control_has_no_part_of_a_feature_term() -> None:
    terms = [Term(loss="cross_entropy", weight=0.5), term("at", weight=1000), term("simkd"), term("ctkd")]
    assert [(t.loss, t.weight) for t in control_terms(terms)] == [("cross_entropy", 1.0)]


def test_layers_in_between_are_left_behind(tmp_path: Path) -> None:
    student, _ = teach([term("vid"), term("crd")], model("small-cnn", width=4), teacher(), tmp_path, config=SHORT)
    plain = model("small-cnn", width=4)
    assert set(student.state_dict()) == set(plain.state_dict())
    save_model(student, tmp_path / "saved")
    assert bits(load_model(tmp_path / "saved")) == bits(student)


def problem(terms: list[Term], student: Classifier, network: Classifier | None, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        wired(terms, student, network, **settings)
    return str(caught.value)


def test_a_wrong_tap_is_told_with_those_there_are() -> None:
    said = problem([term("at", on="stage:7")], model("small-cnn"), teacher())
    assert "The loss at has an unknown tap" in said and "has 1 stage," in said and "stage:1 = stage3" in said
    assert "has no layer 'stage33'. Did you mean 'stage3'?" in problem(
        [term("at", on="stage33")], model("small-cnn"), teacher()
    )


def test_networks_that_cannot_be_compared() -> None:
    small, network = model("small-cnn"), teacher()
    assert "compares maps, but there are vectors at 'stage:-1' (16,)" in problem(
        [term("at")], model("mlp", hidden=16), network
    )
    assert "has only logits" in problem([term("rkd")], small, None)
    assert "cannot be mixed" in problem([term("crd")], small, network, mixed=True)
    assert "has 2 taps in the student and 1 in the teacher" in problem(
        [term("hcl", on=("stage1", "stage2"), teacher_on="stage3")], small, network
    )
    assert "compares one tap, but `on` lists 2" in problem([term("sp", on=("stage1", "stage2"))], small, network)
    assert "must list at least 2 taps" in problem([term("fsp", on="stage:-1")], small, network)
    assert "the input of the teacher's last layer, 64 features" in problem([term("srrl", on="stage1")], small, network)
    assert "Name a BatchNorm2d layer" in problem([term("ofd", on="stage:-1")], small, transformer())
    assert "a linear layer on the mean of a map" in problem([term("simkd", teacher_on="stage1")], small, network)


def test_crd_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.distributed.world", lambda: 2)
    assert "Run it without torchrun" in problem([term("crd")], model("small-cnn"), teacher())


@pytest.fixture
def allowed(tmp_path: Path):
    with own_code.allowing(tmp_path / "mine.py", tmp_path / "own.py"):
        yield


@pytest.mark.usefixtures("allowed")
def test_a_loss_of_ones_own_on_features(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def cosine(student, teacher, *, power=1.0):\n"
        "    s, t = student.flatten(1), teacher.flatten(1)\n"
        "    return (1 - (s * t).sum(1) / (s.norm(dim=1) * t.norm(dim=1))) ** power\n"
    )
    own = Term(loss=f"{tmp_path}/mine.py:cosine", on="pooled", project=True, options={"power": 2.0})
    _, fitted = teach([own], model("small-cnn", width=4), teacher(), tmp_path, config=SHORT)
    assert losses(fitted, "cosine")[-1] < 0.8 * losses(fitted, "cosine")[0]
    wiring = wired([own], model("small-cnn", width=4), teacher())
    assert len(wiring.connections["cosine"].function.projectors) == 1
    plain = wired([own.model_copy(update={"project": None})], model("small-cnn", width=8), teacher())
    assert len(plain.connections["cosine"].function.projectors) == 0


@pytest.mark.usefixtures("allowed")
def test_a_loss_of_ones_own_on_features_and_labels_is_the_controls_too(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def narrow(student, label):\n    return (label >= 0) * student.flatten(1).square().mean(1)\n"
    )
    own = Term(loss=f"{tmp_path}/own.py:narrow", on="pooled")
    control = control_terms([own, term("kd")])
    assert [t.title for t in control] == ["narrow"]
    wiring = wired(control, model("small-cnn", width=4), None)
    objective = Objective(control, classes=3, teacher=None, connections=wiring.connections)
    batch = mixing(None).train_batch(order(mixing(None)), 0)
    outputs = wiring.student(batch.image)
    assert torch.isclose(objective(outputs, batch)["narrow"], outputs.features["pooled"].square().mean())


def test_the_connector_of_srrl_has_a_relu_only_where_the_teacher_has_one() -> None:
    small = model("small-cnn", width=4)
    for network, kind in ((teacher(), nn.ReLU), (transformer(5).eval(), nn.Identity)):
        loss = wired([term("srrl")], small, network).connections["srrl"].function.loss
        assert isinstance(loss.connector[-1], kind)

"""Every kind of teacher teaches: networks, files of any origin, answers, several, chains, peers, soft labels."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill import artifacts, progress
from potstill.config import build
from potstill.errors import ConfigError, DataError, RunError
from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.models.freeze import bits
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.chain import LinkTraining, prepare_with_chain
from potstill.stages.label import LabelConfig, label
from potstill.stages.recipe import Recipe
from potstill.stages.teacher import replay
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.stages.training import Trained
from tests.distill.lessons import CLASSES, answers, model, order, teacher, world

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 8, "batch_size": 48, "lr": 0.02, "precision": "fp32"}


def data() -> Data:
    loader = world()
    return Data(loader.manifest, loader.pixels, (8, 8), 8)


def recipe(teacher: dict[str, Any], **settings: Any) -> Recipe:
    plain = {
        "data": {"path": "shapes"},
        "teacher": {"train": TRAIN, **teacher},
        "student": {"model": "builtin:mlp", "options": {"hidden": 16}},
        "objective": {"alpha": 0.0, "temperature": 1.0},
        "train": TRAIN,
        "augment": "shift",
        "seeds": 1,
    }
    return build(Recipe, plain | settings)


def prepare(settings: Recipe, folder: Path, images: Data | None = None) -> TeacherSource:
    """Return the teacher of a recipe, bound to its training."""
    images = images or data()
    teacher = prepare_teacher(settings.teacher, images, folder, views=settings.training_views, seed=settings.seed)
    stores, views = folder.parent / "stores", settings.training_views
    return teacher.bind(images, Replay(views, settings.train.epochs, 1, stores, stored=settings.teacher.stored))


def chained(settings: Recipe, folder: Path) -> TeacherSource:
    links = LinkTraining(train.setup_of(settings), settings.objective.loss_terms, 0, 1, 0)
    return prepare_with_chain(settings.teacher, links, data(), folder)


def learn(settings: Recipe, folder: Path) -> tuple[TeacherSource, Trained, list[dict[str, Any]]]:
    source = chained(settings, folder)
    pair = train.experiment(settings, data(), source, folder, folder / "stores")
    (trained,) = pair.students
    lines = (trained.folder / "metrics.jsonl").read_text().splitlines()
    return source, trained, [json.loads(line) for line in lines]


# -- one teacher of every kind -------------------------------------------------------------------------------------


def saved(folder: Path) -> dict[str, Any]:
    save_model(teacher(), folder / "saved")
    return {"model": str(folder / "saved")}


def weights(folder: Path) -> dict[str, Any]:
    saved(folder)
    return {"model": "builtin:small-cnn", "options": {"width": 8}, "weights": str(folder / "saved/model.safetensors")}


@functools.cache
def exported() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(teacher(), Path(folder) / "t.onnx")
        return (Path(folder) / "t.onnx").read_bytes()


def own_onnx(folder: Path) -> dict[str, Any]:
    (folder / "t.onnx").write_bytes(exported())
    return {"model": str(folder / "t.onnx")}


class Foreign(torch.nn.Module):
    """What somebody else might export: channels last, 0..255, probabilities, classes in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.network = teacher().network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        seen = (image.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        return torch.softmax(self.network(seen), 1)[:, [2, 0, 1]]


@functools.cache
def exported_elsewhere() -> bytes:
    program = torch.onnx.export(
        Foreign().eval(), (torch.zeros(2, 8, 8, 1),), dynamo=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=20,
    )  # fmt: skip
    return program.model_proto.SerializeToString()


def foreign_onnx(folder: Path) -> dict[str, Any]:
    file = folder / "foreign.onnx"
    file.write_bytes(exported_elsewhere())
    card = {"classes": ["stripes", "circle", "cross"], "mean": [0.0], "std": [1 / 255], "output": "probabilities"}
    return {"model": str(file), "card": card}


def said() -> np.ndarray:
    loader = world()
    return answers_for(np.arange(len(loader.manifest)))


def answers_for(rows: np.ndarray) -> np.ndarray:
    from potstill.training.predict import predict_logits

    return predict_logits(teacher(), world(), rows)


def csv_probabilities(folder: Path) -> dict[str, Any]:
    p = np.exp(said()) / np.exp(said()).sum(1, keepdims=True)
    names = [world().manifest.name(row) for row in range(len(p))]
    lines = [f"{name},{row[1]:.6f},{row[0]:.6f},{row[2]:.6f}" for name, row in zip(names, p, strict=True)]
    (folder / "a.csv").write_text("\n".join(["image,cross,circle,stripes", *lines]))
    return {"model": str(folder / "a.csv")}


def npz_logits(folder: Path) -> dict[str, Any]:
    np.savez(folder / "a.npz", logits=said(), classes=CLASSES)
    return {"model": str(folder / "a.npz")}


def hard_labels(folder: Path) -> dict[str, Any]:
    lines = [f"{row},{CLASSES[best]}" for row, best in enumerate(said().argmax(1))]
    (folder / "hard.csv").write_text("\n".join(["row,label", *lines]))
    return {"model": str(folder / "hard.csv")}


def several(folder: Path) -> dict[str, Any]:
    members = [
        {**saved(folder), "weight": 2.0},
        {"model": "builtin:mlp", "options": {"hidden": 32}},
        npz_logits(folder),
    ]
    return {"ensemble": members}


def write_labels(source: TeacherSource, folder: Path, **settings: Any) -> dict[str, Any]:
    config = build(LabelConfig, {"data": {"path": "shapes"}, **settings})
    return label(config, data(), source, folder)


def soft_labels(folder: Path) -> dict[str, Any]:
    settings = recipe(saved(folder))
    source = prepare(settings, folder / "for-labels")
    write_labels(source, folder / "soft", views=8, augment="shift")
    return {"model": str(folder / "soft")}


def best_of_soft_labels(folder: Path) -> dict[str, Any]:
    source = prepare(recipe(saved(folder)), folder / "for-best")
    write_labels(source, folder / "best", views=8, augment="shift", top_k=2)
    assert json.loads((folder / "best" / "labels.json").read_text())["classes_kept"] == 2
    return {"model": str(folder / "best")}


def assistants(folder: Path) -> dict[str, Any]:
    return {**saved(folder), "assistants": [{"model": "builtin:small-cnn", "options": {"width": 4}}]}


def generations(folder: Path) -> dict[str, Any]:
    return {**saved(folder), "generations": 2}


def peer(folder: Path) -> dict[str, Any]:
    return {"model": "builtin:small-cnn", "options": {"width": 8}, "mutual": True}


def live(folder: Path) -> dict[str, Any]:
    return {**saved(folder), "stored": False}


def live_file(folder: Path) -> dict[str, Any]:
    return {**own_onnx(folder), "stored": False}


def test_a_teacher_trained_here_is_not_its_own_control_and_shares_the_balance(tmp_path: Path) -> None:
    alike = {"model": "builtin:mlp", "options": {"hidden": 16}, "train": {**TRAIN, "epochs": 1}}
    settings = {"train": {**TRAIN, "epochs": 1, "balance": "full"}, "objective": {"alpha": 0.5, "temperature": 1.0}}
    control = recipe(alike, **settings)
    pair = train.experiment(control, data(), chained(control, tmp_path), tmp_path, tmp_path / "stores")
    assert bits(load_model(tmp_path / "teacher")) != bits(pair.controls[0].load())
    told = json.loads((tmp_path / "teacher" / artifacts.MANIFEST).read_text())["inputs"]
    assert told["train"]["balance"] == "full" and told["seed"] != control.seed


KINDS = [saved, weights, live, own_onnx, live_file, foreign_onnx, csv_probabilities, npz_logits, hard_labels, several,
         soft_labels, best_of_soft_labels, assistants, generations]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_student_learns_from_every_kind_of_teacher(tmp_path: Path, kind: Callable[[Path], dict]) -> None:
    source, trained, rows = learn(recipe(kind(tmp_path)), tmp_path / "run")
    assert rows[-1]["train"]["kd"] < 0.5 * rows[0]["train"]["kd"]
    agreed = (answers(trained.load()).argmax(1) == answers(teacher()).argmax(1)).mean()
    assert agreed > 0.85, agreed
    if kind not in (assistants, generations):
        assert source.record["validation_accuracy"]["last"] > 90
    if kind is saved:
        assert bits(source.model) == bits(teacher())


@pytest.mark.slow
def test_the_same_teacher_says_the_same_in_every_form(tmp_path: Path) -> None:
    loader, batches = world(), order(world())
    truth = teacher()
    for kind in (saved, weights, live, own_onnx, foreign_onnx, soft_labels, best_of_soft_labels):
        settings = recipe(kind(tmp_path))
        source = prepare(settings, tmp_path / kind.__name__)
        function = source.function()
        for step in (0, 7):
            batch = loader.train_batch(batches, step)
            with torch.no_grad():
                expected = truth(batch.image).logits.softmax(1)
            assert torch.allclose(function(batch).logits.softmax(1), expected, atol=5e-3), kind.__name__
    for kind in (csv_probabilities, npz_logits):
        settings = recipe(kind(tmp_path))
        source = prepare(settings, tmp_path / kind.__name__)
        batch = loader.train_batch(batches, 2)
        expected = torch.from_numpy(answers_for(batch.index.numpy())).softmax(1)
        assert torch.allclose(source.function()(batch).logits.softmax(1), expected, atol=1e-4), kind.__name__


# -- several -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_ensemble_is_the_weighted_mean_stored_and_measured_alike(tmp_path: Path, average: str) -> None:
    other = {"model": "builtin:mlp", "options": {"hidden": 32}}
    settings = recipe({"ensemble": [{**saved(tmp_path), "weight": 3.0}, other], "average": average})
    source = prepare(settings, tmp_path / "teacher")
    function = source.function()
    batch = world().train_batch(order(world()), 4)
    with torch.no_grad():
        z = [member.model(batch.image).logits for member in source.members]
    mean = (
        (3 * z[0].softmax(1) + z[1].softmax(1)) / 4
        if average == "probabilities"
        else (0.75 * z[0] + 0.25 * z[1]).softmax(1)
    )
    assert torch.allclose(function(batch).logits.softmax(1), mean, atol=5e-3)
    assert torch.allclose(source.model(batch.image).logits.softmax(1), mean, atol=1e-5)
    told = source.facts["members"]
    assert [one["weight"] for one in told] == [3.0, 1.0] and all(one["validation_accuracy"] > 40 for one in told)


def test_members_that_are_trained_here_are_no_twins(tmp_path: Path) -> None:
    same = {"model": "builtin:mlp", "options": {"hidden": 8}}
    source = prepare(recipe({"ensemble": [same, same]}), tmp_path)
    assert bits(source.members[0].model) != bits(source.members[1].model)


# -- chains and peers ----------------------------------------------------------------------------------------------


def test_a_chain_tells_what_it_cost(tmp_path: Path) -> None:
    settings = recipe({**assistants(tmp_path), "generations": 1})
    source, trained, _ = learn(settings, tmp_path / "run")
    first, second = source.facts["chain"]
    assert first["name"] == "builtin:small-cnn" and second["name"] == "builtin:mlp"
    assert first["steps"] == second["steps"] == trained.record["steps"] == 8 * 3
    assert any("48 steps" in note and "which the control does not have" in note for note in progress.display().notes)
    again = chained(settings, tmp_path / "run")
    assert again.identity == source.identity and again.identity != trained.load().card.weights_sha256
    assert (tmp_path / "run" / "chain" / "2" / "seed-2000" / "model.safetensors").is_file()


def test_peers_teach_each_other_and_the_student_alone_is_delivered(tmp_path: Path) -> None:
    settings = recipe(peer(tmp_path), objective={"alpha": 0.5, "temperature": 1.0}, train={**TRAIN, "epochs": 12})
    _, trained, rows = learn(settings, tmp_path)
    assert {"kd", "cross_entropy", "peer_kd", "peer_cross_entropy", "loss"} <= set(rows[0]["train"])
    parts = rows[3]["train"]
    halves = [parts[name] for name in ("kd", "cross_entropy", "peer_kd", "peer_cross_entropy")]
    assert parts["loss"] == pytest.approx(0.5 * sum(halves), rel=1e-5)
    assert rows[-1]["validation"]["accuracy"] > 85
    student, other = trained.load(), load_model(trained.folder / "peer")
    assert student.card.model == "builtin:mlp" and other.card.model == "builtin:small-cnn"
    assert set(student.state_dict()) == set(model("mlp", hidden=16).state_dict())


def test_peers_share_logits_only(tmp_path: Path) -> None:
    terms = {"terms": [{"loss": "feature_mse"}]}
    with pytest.raises(ConfigError, match="supports only losses on logits"):
        learn(recipe(peer(tmp_path), objective=terms), tmp_path)


# -- soft labels ---------------------------------------------------------------------------------------------------


def test_soft_labels_are_written_once_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.teachers.prediction_store.PART_ROWS", 50)
    source = prepare(recipe(saved(tmp_path)), tmp_path / "t")
    facts = write_labels(source, tmp_path / "soft", views=2, augment="shift", top_k=2, teacher={"model": "T"})
    assert facts["images"] == 144 and facts["bytes"] > 2 * 144 * (2 * 4 + 2) and facts["accuracy"] > 90
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "soft").rglob("part-*")}
    assert len(files) == 2 * 3
    next(iter(files)).unlink()
    write_labels(source, tmp_path / "soft", views=2, augment="shift", top_k=2, teacher={"model": "T"})
    assert sum(file.stat().st_mtime_ns == files[file] for file in files) == 5
    with pytest.raises(RunError, match="different: views"):
        write_labels(source, tmp_path / "soft", views=3, augment="shift", top_k=2, teacher={"model": "T"})


def test_a_recipe_takes_as_many_views_as_there_are_soft_labels_of(tmp_path: Path) -> None:
    source = prepare(recipe(saved(tmp_path)), tmp_path / "t")
    write_labels(source, tmp_path / "soft", views=2, augment="shift")
    _, trained, rows = learn(recipe({"model": str(tmp_path / "soft")}), tmp_path / "run")
    assert len(rows) == 8 and rows[-1]["train"]["kd"] < 0.5 * rows[0]["train"]["kd"]
    assert any("soft labels for 2 views of each image" in note for note in progress.display().notes)
    control = artifacts.finished(tmp_path / "run" / "control" / "seed-0")
    assert (
        control["inputs"]["augment"]
        == artifacts.finished(trained.folder)["inputs"]["augment"]
        == ["shift", None, 0.2, 2]
    )


@pytest.mark.slow
@pytest.mark.parametrize("mix", [None, "mixup", "cutmix"])
def test_stored_and_live_give_the_same_losses_over_whole_epochs(tmp_path: Path, mix: str | None) -> None:
    objective = {"terms": [{"loss": "kd"}, {"loss": "dist"}, {"loss": "cross_entropy"}]}
    views = TRAIN["epochs"]  # by default a stored teacher has fewer
    rows = [
        learn(recipe(kind(tmp_path), mix=mix, objective=objective, views=views), tmp_path / kind.__name__)[2]
        for kind in (saved, live, soft_labels)
    ]
    for epochs in zip(*rows, strict=True):
        for other in epochs[1:]:
            assert other["train"] == pytest.approx(epochs[0]["train"], rel=5e-3, abs=1e-3)


def test_soft_labels_of_something_else_are_refused(tmp_path: Path) -> None:
    made = soft_labels(tmp_path)
    wrong = {
        "augment=shift and seed=0, but the recipe has augment=none": recipe(made, augment="none", seed=0),
        "but the recipe uses 9. Set views: 8": recipe(made, views=9),
    }
    for number, (told, settings) in enumerate(wrong.items()):
        with pytest.raises(ConfigError, match=told):
            learn(settings, tmp_path / f"run-{number}")
    fewer = Data(data().manifest.select(np.arange(200)), data().pixels, (8, 8), 8)
    settings = recipe(made)
    source = prepare(settings, tmp_path / "t", fewer)
    with pytest.raises(ConfigError, match="soft labels of other images"):
        source.function()


def test_views_that_are_no_longer_the_same_are_noticed(tmp_path: Path) -> None:
    made = soft_labels(tmp_path)
    file = tmp_path / "soft" / "probe.safetensors"
    from safetensors.numpy import load_file, save_file

    probe = load_file(file)
    probe["image"][3] = np.roll(probe["image"][3], 1, -1)
    save_file(probe, file)
    with pytest.raises(RunError, match="differ from those labelled"):
        learn(recipe(made), tmp_path / "run")


def test_stored_answers_are_asked_for_again(tmp_path: Path) -> None:
    settings = recipe(saved(tmp_path))
    source = prepare(settings, tmp_path / "t")
    source.function()
    changed = teacher()
    with torch.no_grad():
        changed.network.head.bias += torch.tensor([2.0, -2.0, 0.0])
    liar = dataclasses.replace(source, model=changed)
    with pytest.raises(RunError, match=f"evaluated again for {replay.PROBED} of them"):
        liar.function()


def test_a_store_keeps_the_precision_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, stores = recipe(saved(tmp_path)), tmp_path / "stores"
    for faster in ("bf16", "fp32"):  # a resumed run may measure another one to be faster, with other threads
        monkeypatch.setattr(replay.predict, "resolve_precision", lambda *_, faster=faster: faster)
        prepare(settings, tmp_path / "t").function()
        (store,) = stores.iterdir()
        assert artifacts.read_json(store / "source.json")["precision"] == "bf16"


# -- what does not fit ---------------------------------------------------------------------------------------------


def test_a_teacher_of_two_classes_teaches_those(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", logits=said()[:, [1, 0]], classes=["cross", "circle"])
    settings = recipe({"model": str(tmp_path / "two.npz")}, objective={"alpha": 0.5, "temperature": 1.0})
    source, trained, rows = learn(settings, tmp_path / "run")
    assert source.known == (0, 1) and rows[-1]["train"]["kd"] < 0.5 * rows[0]["train"]["kd"]
    assert trained.record["validation_accuracy"]["last"] > 80  # the third class came from the labels
    assert any("does not have the classes stripes" in note for note in progress.display().notes)


def refused(kind: type[Exception], settings: Recipe, folder: Path) -> str:
    with pytest.raises(kind) as caught:
        prepare(settings, folder / "refused")
    return str(caught.value)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    made = foreign_onnx(tmp_path)
    bare = {**made, "card": {"mean": [0.0], "std": [1.0]}}
    assert "the data has circle, cross, stripes" in refused(ConfigError, recipe(bare), tmp_path)
    other = {**made, "card": {**made["card"], "classes": ["a", "b", "c"]}}
    assert "0 of 3 data classes" in refused(ConfigError, recipe(other), tmp_path)
    np.savez(tmp_path / "short.npz", logits=said()[:100], rows=np.arange(100))
    assert "no prediction for 81 of 144 training images: " in refused(
        DataError, recipe({"model": str(tmp_path / "short.npz")}), tmp_path
    )
    np.savez(tmp_path / "two.npz", logits=said()[:, :2], classes=CLASSES[:2])
    members = [{"model": str(tmp_path / "two.npz")}, saved(tmp_path)]
    assert "lacks classes of the data (stripes)" in refused(ConfigError, recipe({"ensemble": members}), tmp_path)
    with pytest.raises(ConfigError, match="both `model` and `ensemble`"):
        recipe({**saved(tmp_path), "ensemble": members})
    np.savez(tmp_path / "at.npz", logits=said(), classes=CLASSES)
    with pytest.raises(ConfigError, match="has only logits"):
        learn(recipe({"model": str(tmp_path / "at.npz")}, objective={"terms": [{"loss": "rkd"}]}), tmp_path / "run")


def test_classes_in_a_wrong_order_are_suspected(tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", logits=said()[:, [1, 2, 0]])
    prepare(recipe({"model": str(tmp_path / "wrong.npz")}), tmp_path / "t")
    told = progress.display().notes
    assert any("assuming the order of the data's" in note for note in told)
    assert any("hardly more than guessing" in note for note in told)


def test_a_map_in_the_recipe(tmp_path: Path) -> None:
    np.savez(tmp_path / "de.npz", logits=said()[:, [1, 2, 0]], classes=["Kreuz", "Streifen", "Kreis"])
    names = {"circle": "Kreis", "cross": "Kreuz", "stripes": ["Streifen"]}
    source, _, rows = learn(recipe({"model": str(tmp_path / "de.npz"), "class_map": names}), tmp_path / "run")
    assert source.record["validation_accuracy"]["last"] > 90 and rows[-1]["train"]["kd"] < rows[0]["train"]["kd"]


def test_the_identity_tells_maps_apart(tmp_path: Path) -> None:
    save_model(teacher(), tmp_path / "plain")
    card = artifacts.read_json(tmp_path / "plain" / "card.json")
    card["classes"] = ["stripes", "circle", "cross"]
    artifacts.write_json(tmp_path / "plain" / "card.json", card)
    one = prepare(recipe({"model": str(tmp_path / "plain")}), tmp_path / "a")
    two = prepare(recipe(saved(tmp_path)), tmp_path / "b")
    assert one.identity != two.identity and one.record["validation_accuracy"]["last"] < 20

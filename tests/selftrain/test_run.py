"""Whole runs: a pool that helps, pools that cannot, copies of test images, and runs that were killed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import potstill
from potstill import artifacts
from potstill.data import duplicates
from potstill.data.formats import from_arrays
from potstill.model_files import open
from potstill.model_files.folder import save_model
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig
from potstill.stages.selftrain import SelftrainConfig, selftrain
from potstill.stages.selftrain import rounds as rounds_module
from potstill.stages.selftrain.rounds import Rounds
from potstill.stages.selftrain.settings import VALIDATION
from potstill.stages.selftrain.students import _from, _last, noise_of, training_set
from potstill.training.loop import TrainingLoop
from tests.selftrain.worlds import labelled, more, pixels, pool_file, settings

pytestmark = pytest.mark.slow

ROWS = ["teachers, averaged", "labels only", "distilled on labels", "distilled with the pool", "round 1"]


def test_the_table_is_whole_and_the_budgets_are_equal(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    config = settings(data, pool_file(tmp_path, more()), labels=30)
    found = selftrain(config, tmp_path / "run")
    assert list(found["models"]) == ROWS
    rows = list(found["models"].values())
    steps = [row["steps"] for row in rows[1:4]]
    assert max(steps) - min(steps) <= 2
    assert all(len(row["test_accuracy"]) == 2 for row in rows[1:])
    assert all(row["against_labels_only"]["seeds"] == 2 for row in rows[2:])
    assert found["labels"]["generations"][0]["churn"] is None
    assert found["labels"]["generations"][1]["churn"] >= 0
    assert found["labels"]["quality"]["predictions"] == 24
    assert set(found["recall"]) == {"circle", "cross", "stripes"}
    for name in ("labels.csv", "to-review.csv", "labels.html", "student.json"):
        assert (tmp_path / "run" / name).is_file()
    assert len((tmp_path / "run" / "to-review.csv").read_text().splitlines()) == 1 + config.to_review
    assert open.find(str(tmp_path / "run")).card.classes == ("circle", "cross", "stripes")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    damaged = tmp_path / "copy" / "labels-only-clean" / "seed-0" / "manifest.json"
    damaged.write_text(damaged.read_text().replace("seed", "sead", 1))
    again = selftrain(config, tmp_path / "copy")  # a training that starts from another one in the folder is not moved
    assert {name: row["test_accuracy"] for name, row in again["models"].items()} == {
        name: row["test_accuracy"] for name, row in found["models"].items()
    }


def noise(random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 256, (150, 8, 8), np.uint8)


def other_classes(random: np.random.Generator) -> np.ndarray:
    """Return bright dots and ramps, of no class that is learned."""
    ramp = np.linspace(0, 255, 8)[None, :, None] * random.random((150, 1, 8))
    ramp[::2] = 20
    ramp[np.arange(0, 150, 2), random.integers(0, 8, 75), random.integers(0, 8, 75)] = 255
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("pool", [noise, other_classes])
def test_a_pool_that_cannot_help_is_told_and_its_model_not_kept(
    pool: Callable[[np.random.Generator], np.ndarray], tmp_path: Path
) -> None:
    data, _ = labelled(tmp_path)
    images = pool(np.random.default_rng(0))
    config = settings(data, pool_file(tmp_path, images), rounds=0, steps=60, teacher_steps=60)
    found = selftrain(config, tmp_path / "run")
    assert not found["helped"]
    assert "did not help" in found["choice"]["sentence"] and "kept the model without" in found["choice"]["sentence"]
    kept = artifacts.read_json(tmp_path / "run" / "student.json")["folder"]
    assert kept.startswith(("labels-only", "distilled-on-labels"))


def test_five_percent_copies_of_test_images_are_left_out(tmp_path: Path) -> None:
    data, made = labelled(tmp_path)
    test = made.rows("test")
    images = np.concatenate([more(190), pixels(made, test[:10])])
    found = selftrain(settings(data, pool_file(tmp_path, images), rounds=0, seeds=1), tmp_path / "run")
    assert found["pool"]["left_out"][duplicates.REASONS[duplicates.COPY_OF_TEST]] == 10
    assert found["pool"]["kept"] == 190
    assert "10 duplicate or near duplicate of a test image" in " ".join(found["notes"])


class Killed(Exception):
    """The power went."""


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("model.safetensors"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def killed(*_: Any) -> None:
    raise Killed


def killing(monkeypatch: pytest.MonkeyPatch, where: str, at: int = 5) -> None:
    """Let the process die in step `at` of the training in the folder called `where`, just after a checkpoint."""
    step = TrainingLoop.train_step

    def dying(self: Any, *given: Any) -> Any:
        if where in self.job.folder.parts and self.step == at:
            self.save()
            raise Killed
        return step(self, *given)

    monkeypatch.setattr(TrainingLoop, "train_step", dying)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = labelled(tmp_path, 150)
    config = settings(
        data, pool_file(tmp_path, more(120)), seeds=1, labels=24, steps=20, teacher_steps=20, rounds=2, folds=2
    )
    monkeypatch.setattr(rounds_module, "gain", lambda after, before: (0.0, 0.0))  # both rounds, whatever they gain
    whole = selftrain(config, tmp_path / "whole")
    for where in ("teachers", "labels-only", "crossfit"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killing(patch, where)
            selftrain(config, tmp_path / "killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):  # between the first students and the rounds
        patch.setattr(Rounds, "iterate", killed)
        selftrain(config, tmp_path / "killed")
    for where in ("round-1", "round-2"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killing(patch, where)
            selftrain(config, tmp_path / "killed")
    assert not (tmp_path / "killed" / "summary.json").is_file()
    resumed = selftrain(config, tmp_path / "killed")
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")
    assert {n: m["accuracy"] for n, m in resumed["models"].items()} == {
        n: m["accuracy"] for n, m in whole["models"].items()
    }
    assert selftrain(config, tmp_path / "killed") == resumed


def test_a_large_student_learns_in_the_rounds_and_a_small_one_at_the_end(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path, 150)
    large = {"model": "builtin:mlp", "options": {"hidden": 48}}
    config = settings(data, pool_file(tmp_path, more(90)), seeds=1, large=large, labelling="hard")
    found = selftrain(config, tmp_path / "run")
    rows = found["models"]
    assert list(rows)[-2:] == ["round 1", "small student"]
    assert rows["round 1"]["parameters"] > rows["small student"]["parameters"]
    assert found["kept"] != "round 1"


def test_a_teacher_that_is_given_is_calibrated_on_validation(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path, 150)
    pool = pool_file(tmp_path, more(90))
    selftrain(settings(data, pool, seeds=1, rounds=0), tmp_path / "first")
    given = tmp_path / "first" / "labels-only-clean" / "seed-0"
    config = settings(data, pool, seeds=1, rounds=0, teachers=[{"model": str(given)}, {"model": "builtin:mlp"}])
    found = selftrain(config, tmp_path / "second")
    quality = found["labels"]["quality"]
    assert quality["models"] == 4 and len(quality["temperature"]) == 2
    assert "may have been trained on these labels" in " ".join(found["notes"])


def test_noise_grows_with_the_student(tmp_path: Path) -> None:
    manifest = from_arrays(more(30), np.arange(30) % 3, classes=["a", "b", "c"])
    data = dataset.prepare(settings(tmp_path, None).data, manifest=manifest)
    small, middle = StudentConfig(), StudentConfig(options={"hidden": 2000})
    assert noise_of(small, data, "auto")[0] == ["auto"]
    assert noise_of(middle, data, "auto")[0] == ["auto", {"randaugment": {"magnitude": 3}}]
    large = StudentConfig(model="resnet18")
    augment, options = noise_of(large, data, "auto")
    assert augment[1]["randaugment"]["magnitude"] == 9 and options["drop_path_rate"] > 0
    assert noise_of(StudentConfig(model="builtin:cnn"), data, "none") == ("none", {"dropout": 0.0})


def test_a_world_repeats_rows_for_the_steps_that_were_asked_for() -> None:
    manifest = from_arrays(more(30), np.arange(30) % 3, classes=["a", "b", "c"])
    data = dataset.prepare(SelftrainConfig(data={"path": "x"}).data, manifest=manifest)
    made = training_set(data, np.array([4, 7]), 100, 8, evaluations=5)
    assert made.epochs * (len(made.data.manifest) // 8) == 100
    for row in range(6):
        assert (made.data.manifest.image(row) == manifest.image(int(made.base[row]))).all()
        assert (
            made.data.pixels.take(np.array([row]))[0, 0].numpy() == manifest.image(int(made.base[row]))[..., 0]
        ).all()


def sorted_by_class(*per_class: int) -> tuple[Data, np.ndarray]:
    """Return images as a folder of classes has them, one class after the other, and their rows."""
    label = np.repeat(np.arange(len(per_class)), per_class)
    manifest = from_arrays(more(len(label)), label, classes=[f"c{k}" for k in range(len(per_class))])
    return dataset.prepare(SelftrainConfig(data={"path": "x"}).data, manifest=manifest), np.arange(len(label))


@pytest.mark.parametrize(("steps", "batch"), [(100, 8), (10, 4), (60, 4)])
def test_every_class_is_repeated_as_often_as_it_is_labelled(steps: int, batch: int) -> None:
    data, rows = sorted_by_class(60, 30, 30)
    made = training_set(data, rows, steps, batch, evaluations=10)
    drawn = made.data.manifest.rows("train")
    share = np.bincount(made.data.manifest.label[drawn], minlength=3) / len(drawn)
    assert share == pytest.approx([0.5, 0.25, 0.25], abs=1 / len(drawn) + 1e-9)
    assert made.epochs * (len(drawn) // batch) == steps
    assert steps * batch < len(rows) or len(np.unique(made.base[drawn])) == len(rows)


def test_the_last_steps_without_noise_see_every_class() -> None:
    data, rows = sorted_by_class(60, 60, 60)
    few = _last(SelftrainConfig(data={"path": "x"}, train={"batch_size": 4}), training_set(data, rows, 90, 4))
    manifest = few.data.manifest
    counts = np.bincount(manifest.label[manifest.rows("train")], minlength=3)
    assert counts.max() - counts.min() <= 2


def test_a_folder_is_a_student_of_every_phase(tmp_path: Path) -> None:
    data, _ = sorted_by_class(10, 10)
    save_model(data.model("builtin:mlp"), tmp_path / "small")
    student = StudentConfig(model=str(tmp_path / "small"))
    assert noise_of(student, data, "auto")[0] == ["auto"]
    assert _from(student, tmp_path / "trained") == {"model": str(tmp_path / "trained")}
    assert _from(StudentConfig(), tmp_path) == {"weights": str(tmp_path / "model.safetensors")}


def test_a_fifth_of_few_labels_is_for_validation() -> None:
    assert SelftrainConfig(data={"path": "x"}).data.validation == VALIDATION
    assert SelftrainConfig(data={"path": "x", "validation": 0.1}).data.validation == 0.1


def test_it_is_a_public_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, _ = labelled(tmp_path, 150)
    small = {"teachers": [{"model": "builtin:mlp"}], "folds": 2, "rounds": 0, "seeds": 1, "steps": 12, "to_review": 2}
    small |= {"teacher_steps": 12, "train": {"batch_size": 32}, "labels": 24, "crossfit": False}
    found = potstill.selftrain(data, unlabelled=pool_file(tmp_path, more(60)), **small)
    assert found.folder == Path("runs/selftrain-labelled.npz") and found.summary["kind"] == "selftrain"
    measured = potstill.evaluate(found.folder, data)
    assert measured.accuracy == pytest.approx(found.kept.test_accuracy[0], abs=0.01)
    with pytest.raises(TypeError, match="round"):
        potstill.selftrain(data, unlabelled="pool.npy", round=1)

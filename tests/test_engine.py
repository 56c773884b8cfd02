"""The two loops: bit-exact resume, stored against live teachers, teachers that do not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from potstill.data.pixels import load_pixels

from potstill import engine
from potstill.data.augment import parse_policy
from potstill.data.loader import Loader, Order
from potstill.data.views import View
from potstill.engine import TrainConfig, fill_store, fit, predict_logits
from potstill.errors import RunError
from potstill.models import zoo
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.objective import Objective, lecture_terms
from potstill.store import Store
from potstill.teachers import LiveTeacher, StoredTeacher
from tests.worlds import shapes

CONFIG = TrainConfig(epochs=3, batch_size=32, optimizer="adamw", lr=0.01, precision="fp32")


def loader(**options: object) -> Loader:
    manifest = shapes()
    pixels = load_pixels(manifest, size=(8, 8), resize=8, channels=1, cache=None)
    return Loader(manifest, pixels, View(parse_policy("shift"), size=(8, 8), seed=0), **options)


def model(seed: int, name: str = "builtin:mlp", **options: object) -> Classifier:
    return zoo.create(name, classes=("a", "b", "c"), size=(8, 8), channels=1, options=options, seed=seed)


def teacher() -> Classifier:
    return model(9, "builtin:cnn")


def order(loaded: Loader, views: int = 3) -> Order:
    return Order(loaded.manifest, batch_size=32, seed=0, views=views)


def lesson(taught: object) -> Objective:
    return Objective(lecture_terms(alpha=0.5, temperature=2.0), classes=3, teacher=taught)


def train(folder: Path, taught: object, config: TrainConfig = CONFIG, **options: object) -> tuple[Classifier, list]:
    student, loaded = model(1, hidden=8), loader(**options)
    fitted = fit(student, lesson(taught), loaded, order(loaded), config, folder=folder, seed=0)
    return student, fitted.rows


class Killed(BaseException):
    """Stands for a power cut between two steps."""


@pytest.mark.parametrize("config", [CONFIG, CONFIG.model_copy(update={"optimizer": "sgd", "precision": "bf16"})])
@pytest.mark.parametrize("kill_at", [1, 6, 9])
def test_killed_and_started_again_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, config: TrainConfig
) -> None:
    straight, rows = train(tmp_path / "straight", LiveTeacher(teacher()), config)
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)  # after every step
    calls = []
    save = engine._Run.save_now_and_then

    def dies(self: engine._Run) -> None:
        save(self)
        calls.append(1)
        if len(calls) == kill_at:
            raise Killed

    monkeypatch.setattr(engine._Run, "save_now_and_then", dies)
    with pytest.raises(Killed):
        train(tmp_path / "killed", LiveTeacher(teacher()), config)
    resumed, rows_after = train(tmp_path / "killed", LiveTeacher(teacher()), config)
    assert bits(resumed) == bits(straight)
    assert [row["train"] for row in rows_after] == [row["train"] for row in rows]
    assert len(calls) == 3 * order(loader()).steps_per_epoch  # nothing was done twice


def test_metrics_have_every_term_of_every_epoch(tmp_path: Path) -> None:
    _, rows = train(tmp_path, LiveTeacher(teacher()))
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in written] == [1, 2, 3] and written[0]["train"] == rows[0]["train"]
    for row in written:
        parts = row["train"]
        assert parts["loss"] == pytest.approx(0.5 * parts["cross_entropy"] + 0.5 * parts["kd"], rel=1e-5)


@pytest.mark.parametrize("mix", [None, "mixup", "cutmix"])
def test_stored_and_live_teacher_say_the_same(tmp_path: Path, mix: str | None) -> None:
    loaded = loader(mix=mix)
    store = Store(tmp_path / "store", loaded.manifest.rows("train"), 3, {})
    fill_store(store, teacher(), loaded)
    _, live = train(tmp_path / "live", LiveTeacher(teacher()), mix=mix)
    _, stored = train(tmp_path / "stored", StoredTeacher(store, 3), mix=mix)
    for one, other in zip(live, stored, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=2e-3)


def test_the_teacher_does_not_change_and_is_no_part_of_the_student(tmp_path: Path) -> None:
    classifier = teacher()
    before, live = bits(classifier), LiveTeacher(classifier)
    student, _ = train(tmp_path, live)
    live.assert_unchanged()
    assert bits(classifier) == before and not classifier.training
    assert set(student.state_dict()) == set(model(1, hidden=8).state_dict())


def test_a_teacher_that_changed_is_noticed() -> None:
    classifier = teacher()
    live = LiveTeacher(classifier)
    with torch.no_grad():
        next(classifier.buffers()).add_(1e-3)
        next(iter(classifier.network.state_dict().values())).add_(1e-3)
    with pytest.raises(AssertionError, match="the teacher changed"):
        live.assert_unchanged()


def test_predict_leaves_the_mode_alone_and_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, loaded = model(1, hidden=8).train(), loader()
    rows = loaded.manifest.rows("test")
    whole = predict_logits(classifier, loaded, rows)
    monkeypatch.setattr(engine, "EVALUATION_BATCH", 7)
    assert classifier.training and whole.shape == (len(rows), 3)
    assert np.allclose(whole, predict_logits(classifier, loaded, rows), atol=1e-6)


def test_a_diverging_loss_stops_with_advice(tmp_path: Path) -> None:
    wild = CONFIG.model_copy(update={"lr": 1e18, "optimizer": "sgd", "warmup": 0.0})
    with pytest.raises(RunError, match="Lower the learning rate"):
        train(tmp_path, LiveTeacher(teacher()), wild)


def test_batches_are_a_pure_function_of_the_step() -> None:
    loaded = loader()
    one, other = order(loaded), order(loaded)
    late = loaded.train_batch(one, 13)
    for step in range(13):
        loaded.train_batch(other, step)
    again = loaded.train_batch(other, 13)
    assert torch.equal(late.image, again.image) and torch.equal(late.index, again.index)
    assert late.image.min() >= 0 and late.image.max() <= 1


def test_two_stripes_are_one_batch() -> None:
    whole, stripes = loader(), [loader(stripe=(rank, 2)) for rank in (0, 1)]
    together = whole.train_batch(order(whole), 5)
    for rank, striped in enumerate(stripes):
        part = striped.train_batch(order(striped), 5)
        assert torch.equal(part.image, together.image[rank::2]) and torch.equal(part.index, together.index[rank::2])


def test_labelled_and_unlabelled_rows_share_a_batch() -> None:
    manifest = shapes()
    label = manifest.label.copy()
    label[manifest.rows("train")[20:]] = -100
    chosen = Order(manifest.with_labels(label), batch_size=32, seed=0, views=2, labelled_share=0.25)
    for step in range(5):
        index, view = chosen.at(step)
        assert (label[index] >= 0).sum() == 8 and len(index) == 32 and set(view) <= {0, 1}


def test_learning_rate_rises_and_falls() -> None:
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [config.lr_at(step, 100) for step in range(100)]
    assert rates[0] < 0.1 and max(rates) == pytest.approx(1.0, abs=0.01) and rates[-1] < 0.01
    assert rates == [*sorted(rates[:11]), *sorted(rates[11:], reverse=True)]

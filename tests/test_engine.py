"""The two loops: bit-exact resume, stored against live teachers, teachers that do not change."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from potstill import progress
from potstill.data.augment import parse_policy
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.errors import RunError
from potstill.evaluation.metrics import accuracy
from potstill.models import zoo
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, lecture_terms
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.training import engine, predict
from potstill.training.autotune import ExecutionPlan
from potstill.training.engine import fit
from potstill.training.loop import TrainingLoop
from potstill.training.predict import fill_store, predict_logits
from potstill.training.prefetch import Prefetcher
from potstill.training.settings import TrainConfig
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


def train(
    folder: Path, taught: object, config: TrainConfig = CONFIG, *, student: str = "builtin:mlp", **options: object
) -> tuple[Classifier, list]:
    small = {"builtin:mlp": {"hidden": 8}, "builtin:small-cnn": {"width": 4}, "builtin:cnn": {}}[student]
    learner, loaded = model(1, student, **small), loader(**options)
    rows = loaded.manifest.rows("validation")

    def validate(classifier: Classifier) -> dict[str, float]:
        return {"accuracy": accuracy(predict_logits(classifier, loaded, rows), loaded.manifest.label[rows])}

    fitted = fit(learner, lesson(taught), loaded, order(loaded), config, folder=folder, seed=0, validate=validate)
    return learner, fitted.rows


class Killed(BaseException):
    """Stands for a power cut between two steps."""


SGD_BF16 = {"optimizer": "sgd", "precision": "bf16"}
EVERYTHING = {"ema": 0.9, "accumulate": 3, "clip": 1.0, "select": "best"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "student", "kill_at"),
    [
        ({}, "builtin:mlp", 1),
        ({}, "builtin:mlp", 9),
        (SGD_BF16, "builtin:small-cnn", 6),
        ({"precision": "bf16", **EVERYTHING}, "builtin:small-cnn", 1),
        ({"precision": "bf16", **EVERYTHING}, "builtin:small-cnn", 6),
    ],
    ids=["adamw, 1", "adamw, 9", "sgd, bf16, channels last, 6", "ema, accumulated, clipped, 1",
         "ema, accumulated, clipped, 6"],
)  # fmt: skip
def test_killed_and_started_again_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, student: str, kill_at: int
) -> None:
    config = CONFIG.model_copy(update=settings)
    straight, rows = train(tmp_path / "straight", LiveTeacher(teacher()), config, student=student)
    calls = die_at(kill_at, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", LiveTeacher(teacher()), config, student=student)
    resumed, rows_after = train(tmp_path / "killed", LiveTeacher(teacher()), config, student=student)
    assert bits(resumed) == bits(straight)
    assert [row["train"] for row in rows_after] == [row["train"] for row in rows]
    assert [row["validation"] for row in rows_after] == [row["validation"] for row in rows]
    assert len(calls) == 3 * order(loader()).steps_per_epoch  # nothing was done twice


def die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Save after every step, and die after so many of them; return a list that grows with every step."""
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    calls = []
    save = TrainingLoop.save_now_and_then

    def dies(self: TrainingLoop, every: float) -> None:
        save(self, every)
        calls.append(1)
        if len(calls) == number:
            raise Killed

    monkeypatch.setattr(TrainingLoop, "save_now_and_then", dies)
    return calls


def test_who_goes_on_computes_as_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement at the start may say something else the second time; the run does not."""
    auto = CONFIG.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(engine, "choose", lambda *_, **__: ExecutionPlan("bf16", channels_last=True))
    straight, _ = train(tmp_path / "straight", LiveTeacher(teacher()), auto, student="builtin:small-cnn")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(2, patch)
        train(tmp_path / "killed", LiveTeacher(teacher()), auto, student="builtin:small-cnn")
    monkeypatch.setattr(engine, "choose", lambda *_, **__: ExecutionPlan())
    resumed, _ = train(tmp_path / "killed", LiveTeacher(teacher()), auto, student="builtin:small-cnn")
    other, _ = train(tmp_path / "other", LiveTeacher(teacher()), auto, student="builtin:small-cnn")
    assert bits(resumed) == bits(straight) != bits(other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_gives_the_same_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"compile": True, "epochs": 1})
    eager, _ = train(tmp_path / "eager", LiveTeacher(teacher()), config.model_copy(update={"compile": False}))
    straight, _ = train(tmp_path / "straight", LiveTeacher(teacher()), config)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(2, patch)
        train(tmp_path / "killed", LiveTeacher(teacher()), config)
    resumed, _ = train(tmp_path / "killed", LiveTeacher(teacher()), config)
    assert bits(resumed) == bits(straight)
    for one, other in zip(eager.parameters(), straight.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={**EVERYTHING, "precision": "bf16", "epochs": 1})
    once, again = (
        train(tmp_path / name, LiveTeacher(teacher()), config, student="builtin:cnn")[0] for name in ("a", "b")
    )
    assert bits(once) == bits(again)


@pytest.mark.parametrize("parts", [2, 5])
def test_a_batch_in_parts_is_the_same_batch(tmp_path: Path, parts: int) -> None:
    """32 rows in 5 parts are 7, 7, 6, 6 and 6: each counts by its rows."""
    whole, rows = train(tmp_path / "whole", LiveTeacher(teacher()))
    cut, rows_cut = train(tmp_path / "cut", LiveTeacher(teacher()), CONFIG.model_copy(update={"accumulate": parts}))
    for one, other in zip(rows, rows_cut, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-4)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_more_parts_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate=4 must not exceed batch_size=2"):
        TrainConfig(batch_size=2, accumulate=4)
    manifest = shapes(10)
    small = Loader(manifest, loader().pixels, View(parse_policy("shift"), size=(8, 8), seed=0))
    few = Order(manifest, batch_size=32, seed=0, views=1)
    with pytest.raises(RunError, match="images cannot be split into 16 parts"):
        fit(
            model(1), lesson(LiveTeacher(teacher())), small, few, CONFIG.model_copy(update={"accumulate": 16}),
            folder=tmp_path, seed=0,
        )  # fmt: skip


def test_the_moving_average_is_validated_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the definition, from the weights after every step."""
    config, seen = CONFIG.model_copy(update={"ema": 0.8, "epochs": 1}), []
    step = TrainingLoop.train_step

    first = next(name for name, _ in model(1, hidden=8).network.named_parameters())
    monkeypatch.setattr(
        TrainingLoop, "train_step", lambda self: (step(self), seen.append(weight(self.classifier).clone()))
    )

    def weight(classifier: Classifier) -> torch.Tensor:
        return dict(classifier.network.named_parameters())[first].detach()

    expected = weight(model(1, hidden=8)).double()
    kept, _ = train(tmp_path, LiveTeacher(teacher()), config)
    for number, live in enumerate(seen):
        decay = min(0.8, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * live.double()
    assert torch.allclose(weight(kept).double(), expected, atol=1e-6) and not torch.equal(weight(kept), seen[-1])


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    config = TrainConfig(
        epochs=1, batch_size=128, optimizer="sgd", lr=1.0, momentum=0, weight_decay=0, warmup=0, schedule="constant",
        clip=0.01, precision="fp32",
    )  # fmt: skip
    before, loaded = model(1, hidden=8), loader()
    after = engine.clone(before)
    steps = Order(loaded.manifest, batch_size=128, seed=0, views=1)
    fit(after, lesson(LiveTeacher(teacher())), loaded, steps, config, folder=tmp_path, seed=0)
    moved = [(one - other).detach() for one, other in zip(after.parameters(), before.parameters(), strict=True)]
    assert float(torch.cat([m.flatten() for m in moved]).norm()) == pytest.approx(0.01, rel=1e-3)


class NoWaiting(TorchDispatchMode):
    """Fails where a number is read from a tensor: on an accelerator, the host would wait for all work under way."""

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_never_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    step = TrainingLoop.train_step

    def watched(self: TrainingLoop) -> None:
        with NoWaiting():
            step(self)

    monkeypatch.setattr(TrainingLoop, "train_step", watched)
    config = CONFIG.model_copy(update={**EVERYTHING, "optimizer": optimizer, "epochs": 1})
    train(tmp_path, LiveTeacher(teacher()), config)
    with pytest.raises(AssertionError), NoWaiting():
        float(torch.ones(1))


def test_batches_made_ahead_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, _ = train(tmp_path / "straight", LiveTeacher(teacher()), CONFIG.model_copy(update={"accumulate": 2}))
    batches = TrainingLoop._batches

    def ahead(self: TrainingLoop) -> Prefetcher:
        def following(step: int, part: int) -> tuple[int, int]:
            return (step, 1) if part == 0 else (step + 1, 0)

        return Prefetcher(batches(self), following, torch.device("cpu"))

    monkeypatch.setattr(TrainingLoop, "_batches", ahead)
    threaded, _ = train(tmp_path / "ahead", LiveTeacher(teacher()), CONFIG.model_copy(update={"accumulate": 2}))
    assert bits(threaded) == bits(straight)


def test_metrics_have_every_term_of_every_epoch(tmp_path: Path) -> None:
    shown: list[str] = []

    class Bar(progress.Task):
        def advance(self, steps: int = 1, text: str = "") -> None:
            shown.append(text)

    class Seen(progress.Display):
        @contextlib.contextmanager
        def task(self, title: str, total: int, done: int = 0) -> Iterator[progress.Task]:
            yield Bar()

    with progress.use(Seen()):
        _, rows = train(tmp_path, LiveTeacher(teacher()))
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in written] == [1, 2, 3] and written[0]["train"] == rows[0]["train"]
    for row in written:
        parts = row["train"]
        assert parts["loss"] == pytest.approx(0.5 * parts["cross_entropy"] + 0.5 * parts["kd"], rel=1e-5)
    between = [text for text in shown if "kd" in text]  # and, between the epochs, on the display
    assert between and all("cross_entropy" in text and "loss" in text for text in between)


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
    monkeypatch.setattr(predict, "MOST", 7)
    monkeypatch.setattr(predict, "FEWEST", 1)
    assert classifier.training and whole.shape == (len(rows), 3)
    assert predict.evaluation_batch((8, 8), loaded.device) == 7 and len(rows) > 7
    assert np.allclose(whole, predict_logits(classifier, loaded, rows), atol=1e-6)


@pytest.mark.parametrize(("side", "images"), [(28, 256), (32, 256), (128, 32), (160, 20), (224, 16)])
def test_images_are_evaluated_in_batches_that_stay_in_the_caches(side: int, images: int) -> None:
    assert predict.evaluation_batch((side, side), torch.device("cpu")) == images
    assert predict.evaluation_batch((side, side), torch.device("cuda")) == predict.EVALUATION_BATCH


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

"""A student that labels for itself: only sure rows count, its average is asked, nothing of it changes, it learns."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.data.manifest import UNLABELLED
from potstill.objectives.objective import Term
from potstill.stages import dataset
from potstill.stages.recipe import DataConfig
from potstill.stages.selftrain import selftrain, unlabelled
from potstill.stages.selftrain.fixmatch import Consistency
from potstill.stages.selftrain.rounds import right
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import from_itself, from_labels, learn, training_set
from potstill.training.loop import TrainingLoop
from tests.selftrain.worlds import labelled, more, pool_file, settings

STRONG = [{"affine": {"degrees": 15, "translate": 0.12, "scale": 0.15}}, {"cutout": {"pixels": 3, "fill": "zero"}}]
STEPS = 600


@pytest.fixture(scope="module")
def error_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], float]:
    """Return the test error in percent of a student of 60 digits, by method; "teachers" stands for labels only."""

    @functools.cache
    def measured(method: str) -> float:
        config = SelftrainConfig(
            data={"path": "digits", "validation": 0.2}, labels=60, student={"model": "builtin:small-cnn"},
            method=method, threshold=0.9, clean=0.0, seeds=1,
            train={"batch_size": 64, "lr": 0.004, "compile": False, "precision": "fp32"},
        )  # fmt: skip
        manifest = unlabelled.read(config)
        data = dataset.prepare(config.data, manifest=manifest)
        known, others = manifest.rows("train", labelled=True), manifest.rows("train", labelled=False)
        if method == "teachers":
            made, lesson = training_set(data, known, STEPS, 64, evaluations=2), from_labels
        else:
            made, lesson = training_set(data, np.concatenate([known, others]), STEPS, 64), from_itself(config)
        folder = tmp_path_factory.mktemp(method) / "student"
        trained = learn(config, config.student, made, lesson, folder, 0, noise=STRONG)
        return 100 - 100 * float(right(trained.load(), data, manifest.rows("test")).mean())

    return measured


@pytest.mark.parametrize("method", ["fixmatch", "freematch"])
def test_it_learns_digits_from_six_labels_a_class(method: str, error_of: Callable[[str], float]) -> None:
    assert error_of(method) < 0.85 * error_of("teachers")


def consistency(weak_seen: list[np.ndarray]) -> tuple[Consistency, dataset.Data]:
    data = dataset.prepare(DataConfig(path="digits"))
    student = data.model("builtin:mlp", seed=0)

    def rule(strong: torch.Tensor, weak: torch.Tensor) -> torch.Tensor:
        weak_seen.append(weak.numpy())
        return strong.sum(1)

    terms = [Term(loss="cross_entropy")]
    return Consistency(terms, student, data.loader(), rule=rule, title="own", weight=2.0), data


def test_labelled_rows_have_labels_and_the_others_themselves() -> None:
    seen: list[np.ndarray] = []
    objective, data = consistency(seen)
    student = objective._student.train()
    batch = data.loader().clean_batch(np.arange(6))
    batch.label[2:] = UNLABELLED
    outputs = student(batch.image)
    result = objective(outputs, batch)
    assert student.training and seen[0].shape == (4, 10)
    own = outputs.logits[2:].sum(1).mean()
    torch.testing.assert_close(result["own"], own)
    torch.testing.assert_close(result["loss"], result["cross_entropy"] + 2.0 * own)
    assert not np.isnan(result["cross_entropy"].item())
    batch.label[:] = 0
    assert objective(outputs, batch)["own"].item() == 0


def test_the_moving_average_is_asked_where_there_is_one() -> None:
    seen: list[np.ndarray] = []
    objective, data = consistency(seen)
    batch = data.loader().clean_batch(np.arange(3))
    batch.label[:] = UNLABELLED
    objective.follow({name: torch.zeros_like(value) for name, value in objective._student.state_dict().items()})
    before = {name: value.clone() for name, value in objective._student.state_dict().items()}
    objective(objective._student(batch.image), batch)
    assert (seen[0] == 0).all()
    assert all(torch.equal(value, before[name]) for name, value in objective._student.state_dict().items())


class Killed(Exception):
    """The power went."""


def test_freematch_with_an_average_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = labelled(tmp_path, 150)
    train = {"batch_size": 32, "lr": 0.01, "ema": 0.9}
    config = settings(
        data, pool_file(tmp_path, more(90)), method="freematch", seeds=1, rounds=0, labels=24, train=train, clean=0.0
    )

    def bits(run: Path) -> str:
        return hashlib.sha256((run / "distilled-with-the-pool/seed-0/model.safetensors").read_bytes()).hexdigest()

    selftrain(config, tmp_path / "whole")
    step = TrainingLoop.train_step

    def dying(self: TrainingLoop) -> None:
        if self.job.objective.learned and self.step == 11:
            self.save()
            raise Killed
        step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingLoop, "train_step", dying)
        selftrain(config, tmp_path / "killed")
    selftrain(config, tmp_path / "killed")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")

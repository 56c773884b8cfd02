"""A teacher that knows half of the classes: the student keeps the others, which it learns from labels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill import config
from potstill.compress.prune import inner_channels
from potstill.model_files.folder import save_model
from potstill.models.outputs import Classifier, Outputs
from potstill.stages import dataset
from potstill.stages.compress import common
from potstill.stages.compress.post_training import calibrated
from potstill.stages.compress.prune import PruneConfig
from potstill.stages.compress.quantize import learned
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig
from potstill.stages.teacher.prepared import TrainingContext
from potstill.stages.test_split import clean_logits
from potstill.stages.training import wire_terms
from tests.prune_quantize.conftest import fit

pytestmark = pytest.mark.slow

DATA = {"path": "digits", "limit": 700}
KNOWN = 5  # of the ten digits
SURVIVES = 0.2  # mean recall; 0.44 to 0.9 in such runs, 0.00 where the teacher suppresses what it does not know
TRAIN = {"epochs": 3, "optimizer": "sgd", "lr": 0.02, "weight_decay": 0, "batch_size": 64, "precision": "fp32"}


@pytest.fixture(scope="module")
def digits() -> Data:
    return dataset.prepare(DataConfig(**DATA))


@pytest.fixture(scope="module")
def teacher(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a network that tells 0 to 4 apart and has never heard of the others."""
    whole = digits.model("builtin:mlp", options={"hidden": 32})
    fit(whole, digits)
    half = digits.model("builtin:mlp", options={"hidden": 32}).network
    state = whole.network.state_dict()
    half.head = torch.nn.Linear(32, KNOWN)
    half.load_state_dict({name: value[:KNOWN] if name.startswith("head.") else value for name, value in state.items()})
    folder = tmp_path_factory.mktemp("half")
    save_model(Classifier(half, whole.card.replace(classes=digits.manifest.classes[:KNOWN])).eval(), folder)
    return str(folder)


def settings(kind: type[Any], model: Path, teacher: str, **more: Any) -> Any:
    plain = {"data": DATA, "train": TRAIN, "augment": "none", "calibration": 64}
    return config.build(kind, {**plain, "model": str(model), "teacher": teacher, **more})


def recalls(model: Classifier, data: Data) -> np.ndarray:
    """Return the recall of each class on the test images, 0..1."""
    rows = data.manifest.rows("test", labelled=True)
    label, predicted = data.manifest.label[rows], clean_logits(model, data, rows).argmax(1)
    return np.array([(predicted[label == each] == each).mean() for each in range(len(data.manifest.classes))])


def test_a_pruned_model_keeps_the_classes_that_the_teacher_lacks(trained: Path, teacher: str, tmp_path: Path) -> None:
    given = common.open_model(settings(PruneConfig, trained, teacher, keep=0.7))
    student = Classifier(inner_channels(given.model.network, given.example, keep=0.7), given.model.card)
    common.recover(student, given, common.teacher_of(given, tmp_path), tmp_path / "round-1", title="pruned")
    assert recalls(student, given.data)[KNOWN:].mean() > SURVIVES


def test_few_bits_keep_the_classes_that_the_teacher_lacks(trained: Path, teacher: str, tmp_path: Path) -> None:
    train = TRAIN | {"optimizer": "adamw", "lr": 0.001}
    chosen = settings(QuantizeConfig, trained, teacher, mode="qat", weight_bits=4, train=train)
    given = common.open_model(chosen)
    floating, start, _ = calibrated(chosen, given)
    model, _ = learned(chosen, given, floating, start, tmp_path / "trained", common.teacher_of(given, tmp_path))
    assert recalls(model, given.data)[KNOWN:].mean() > SURVIVES


def test_the_teachers_term_gives_unknown_classes_no_gradient(trained: Path, teacher: str, tmp_path: Path) -> None:
    given = common.open_model(settings(PruneConfig, trained, teacher, keep=0.5))
    source = common.teacher_of(given, tmp_path)
    assert source is not None and source.known == tuple(range(KNOWN))
    terms = given.objective.loss_terms
    wiring = wire_terms(terms, given.model, source, given.data, views=given.views, steps=1, seed=0)
    objective = source.objective(terms, TrainingContext(given.data, given.views, wiring, 1, 0.3))
    batch = given.data.loader(augment="none").batch(given.data.manifest.rows("train")[:16], np.zeros(16, np.int64))
    logits = torch.randn(16, 10, requires_grad=True)
    objective(Outputs(logits), batch)["kd"].backward()
    assert logits.grad is not None
    assert logits.grad[:, :KNOWN].abs().min() > 0 and (logits.grad[:, KNOWN:] == 0).all()

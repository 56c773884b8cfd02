"""Classes of unequal size: weights, adjusted logits, and selection by balanced accuracy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from potstill.data.checks import examine
from potstill.data.formats import from_arrays
from potstill.data.pixels import load_pixels
from potstill.errors import ConfigError
from potstill.evaluation.measured import measured
from potstill.evaluation.statistics import class_weights, compare, p_value
from potstill.losses.logits import cross_entropy
from potstill.objectives.balance import balanced
from potstill.objectives.objective import Term, lecture_terms
from potstill.stages.dataset import Data
from potstill.stages.finetune.choice import PROBE, TUNED, choose
from potstill.stages.finetune.features import Features
from potstill.stages.finetune.probe import probe
from potstill.stages.recipe import Views
from potstill.stages.summary import verdict
from potstill.stages.training import TrainingJob, train_classifier
from potstill.training.settings import TrainConfig

COUNTS = np.array([160, 40, 10])
LOGITS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(50) % 3


@pytest.mark.parametrize(("balance", "ratio"), [("sqrt", 4.0), ("full", 16.0)])
def test_weights_are_those_of_the_class_sizes_with_mean_one(balance, ratio):
    (term, _) = balanced(lecture_terms(alpha=0.3, temperature=2), COUNTS, balance)
    weight = np.array(term.options["class_weight"])
    assert weight[2] / weight[0] == pytest.approx(ratio)
    assert (weight * COUNTS).sum() == pytest.approx(COUNTS.sum())
    expected = F.cross_entropy(LOGITS, LABEL, reduction="none") * torch.tensor(weight, dtype=torch.float32)[LABEL]
    torch.testing.assert_close(term.function(LOGITS, LABEL), expected)
    torch.testing.assert_close(term.function(LOGITS, F.one_hot(LABEL, 3).float()), expected)


def test_adjusted_logits_are_those_of_the_paper():
    (term,) = balanced([Term(loss="cross_entropy")], COUNTS, "logit-adjust")
    share = torch.tensor(COUNTS / COUNTS.sum(), dtype=torch.float32)
    right = -torch.log(share[LABEL] * LOGITS.exp()[torch.arange(50), LABEL] / (share * LOGITS.exp()).sum(1))
    torch.testing.assert_close(term.function(LOGITS, LABEL), right)


def test_none_changes_nothing_and_a_loss_is_needed():
    terms = lecture_terms(alpha=0.3, temperature=2)
    assert balanced(terms, COUNTS, "none") == terms
    assert torch.equal(cross_entropy(LOGITS, LABEL), F.cross_entropy(LOGITS, LABEL, reduction="none"))
    with pytest.raises(ConfigError, match="train.balance=full changes the cross-entropy"):
        balanced([Term(loss="kd")], COUNTS, "full")


def test_figures_tell_what_accuracy_hides():
    logits = np.zeros((100, 2))
    logits[:, 0] = 1
    found = measured(logits, np.array([0] * 95 + [1] * 5))
    assert (found["accuracy"], found["balanced_accuracy"], found["worst_recall"]) == (95.0, 50.0, 0.0)


def test_a_verdict_by_balanced_accuracy_counts_classes_alike():
    """The student wins the rare class and loses as many images of the common one: a tie, and a balanced gain."""
    label = np.array([0] * 900 + [1] * 100)
    control = np.array([[True] * 900 + [False] * 100] * 3)
    student = control.copy()
    student[:, 850:950] ^= True
    weight = class_weights(label)
    assert weight.mean() == pytest.approx(1)
    plain, fair = compare(student, control), compare(student, control, weight=weight)
    assert plain.difference == 0 and plain.result == "TIES" and plain.measure == "accuracy"
    assert fair.difference == pytest.approx(100 * (0.5 - 50 / 900) / 2) and fair.result == "BEATS"
    assert "points of balanced test accuracy" in fair.sentence and fair.to_json()["measure"] == "balanced accuracy"
    assert p_value(student, control) == 1 and p_value(student, control, weight=weight) < 0.05
    assert choose(control[0], student[0]).kept == PROBE and choose(control[0], student[0], weight=weight).kept == TUNED
    logits = [np.eye(2)[np.where(one, label, 1 - label)] for one in (*student, *control)]
    given = {select: TrainConfig(select=select) for select in ("last", "balanced")}
    found = {select: verdict(logits[:3], logits[3:], label, train).result for select, train in given.items()}
    assert found == {"last": "TIES", "balanced": "BEATS"}


@pytest.mark.parametrize("balance", ["full", "logit-adjust"])
def test_a_balanced_probe_has_the_border_of_equal_classes(balance):
    """Two normal distributions at 0 and 2 with shares 9 : 1; without a balance the border is nearer to the rare one."""
    draw = np.random.default_rng(0)
    label = np.repeat([0, 1], [1800, 200])
    x = (draw.normal(0, 1, (2000, 1)) + 2 * label[:, None]).astype(np.float32)
    manifest = from_arrays(draw.integers(0, 256, (2000, 3, 3), dtype=np.uint8), label, ["train"] * 2000)
    vectors: Any = SimpleNamespace(read=lambda rows, view: {"pooled": x[rows]})
    features = Features(("pooled",), vectors, None)
    border = {}
    for each in ("none", balance):
        head = probe(features, manifest, penalty=1e-6, folds=2, seed=0, balance=each).head
        border[each] = float(-(head.bias[1] - head.bias[0]) / (head.weight[1, 0] - head.weight[0, 0]))
    assert border[balance] == pytest.approx(1, abs=0.15)
    assert border["none"] == pytest.approx(1 + np.log(9) / 2, abs=0.15)


@pytest.mark.parametrize(("smaller", "told"), [(8, True), (9, False)])
def test_check_proposes_a_balance_from_one_to_five_on(smaller, told):
    images = np.random.default_rng(0).integers(0, 256, (40 + smaller, 8, 8), dtype=np.uint8)
    found = examine(from_arrays(images, [0] * 40 + [1] * smaller)).findings
    advice = [one.advice for one in found if one.code == "imbalance"]
    assert bool(advice) == told and all("--balance logit-adjust --select balanced" in one for one in advice)


@pytest.mark.slow
def test_a_rare_class_is_found_with_balance_and_chosen_by_it(tmp_path: Path):

    draw = np.random.default_rng(0)
    label = np.array([0] * 760 + [1] * 40)
    images = (120 + 12 * label[:, None, None] + draw.normal(0, 40, (800, 8, 8))).clip(0, 255).astype(np.uint8)
    split = np.where(np.arange(800) % 2, "train", "validation")
    manifest = from_arrays(images, label, split)
    data = Data(manifest, load_pixels(manifest, size=(8, 8), resize=8, channels=1), (8, 8), 8)
    found = {}
    for balance, select in (("none", "best"), ("full", "balanced"), ("logit-adjust", "balanced")):
        train = TrainConfig(epochs=10, batch_size=50, balance=balance, select=select, precision="fp32", compile=False)
        job = TrainingJob((Term(loss="cross_entropy"),), train, Views("none"), 0)
        trained = train_classifier(data.model("builtin:mlp"), data, job, tmp_path / balance)
        rows = manifest.rows("validation")
        logits = trained.load()(torch.from_numpy(images[rows, None] / np.float32(255))).logits.detach().numpy()
        found[balance] = measured(logits, label[rows])["balanced_accuracy"]
        kept = 100 * (logits.argmax(1) == label[rows]).mean()
        assert trained.accuracy == pytest.approx(kept)
    assert min(found["logit-adjust"], found["full"]) > found["none"] + 10

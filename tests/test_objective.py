"""The objective: what each row counts for, and what a control is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import yaml

from potstill.data.augment.mix import Mix
from potstill.data.loader import Batch
from potstill.errors import ConfigError
from potstill.models.outputs import Outputs
from potstill.objectives.objective import Objective, Term, control_terms, lecture_terms

LABEL = torch.tensor([0, 2, -100, 1, -100])


def batch(mix: Mix | None = None) -> Batch:
    rows = torch.arange(5)
    return Batch(torch.zeros(5, 1, 4, 4), LABEL, rows, torch.zeros(5, dtype=torch.int64), mix)


def logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))


def objective(terms: object, **settings: object) -> Objective:
    return Objective(terms, classes=3, teacher=lambda _: Outputs(logits(1)), **settings)


def test_the_lectures_loss_by_hand_with_unlabelled_rows() -> None:
    said = objective(lecture_terms(alpha=0.3, temperature=2.0))(Outputs(logits(0)), batch())
    labelled = LABEL >= 0
    ce = F.cross_entropy(logits(0)[labelled], LABEL[labelled])
    kl = 4 * F.kl_div(
        F.log_softmax(logits(0) / 2, 1), F.log_softmax(logits(1) / 2, 1), log_target=True, reduction="batchmean"
    )
    assert torch.isclose(said["cross_entropy"], ce) and torch.isclose(said["kd"], kl)
    assert torch.isclose(said["loss"], 0.3 * ce + 0.7 * kl)


def test_a_batch_without_labels_gives_the_teachers_terms_and_no_nan() -> None:
    unlabelled = batch()
    unlabelled.label = torch.full((5,), -100)
    said = objective(lecture_terms(alpha=0.5, temperature=1.0))(Outputs(logits(0)), unlabelled)
    assert said["cross_entropy"] == 0 and said["kd"] > 0


def test_mixing_mixes_the_labels_loss() -> None:
    mix = Mix(partner=torch.tensor([1, 0, 3, 2, 4]), weight=torch.full((5,), 0.25))
    terms = [Term(loss="cross_entropy")]
    said = objective(terms)(Outputs(logits(0)), batch(mix))["loss"]
    each = F.cross_entropy(logits(0), LABEL, reduction="none", ignore_index=-100)
    other = F.cross_entropy(logits(0), LABEL[mix.partner], reduction="none", ignore_index=-100)
    assert torch.isclose(said, (0.25 * each.sum() + 0.75 * other.sum()) / 3)


def test_side_heads_count_by_their_weight() -> None:
    outputs = Outputs(logits(0), aux=(logits(2), logits(3)))
    terms = lecture_terms(alpha=0.5, temperature=1.0)
    alone = [objective(terms)(Outputs(logits(seed)), batch())["loss"] for seed in (0, 2, 3)]
    together = objective(terms, aux_weight=0.3)(outputs, batch())["loss"]
    assert torch.isclose(together, alone[0] + 0.3 * (alone[1] + alone[2]))


def test_the_control_keeps_the_labels_terms_at_full_weight() -> None:
    terms = (*lecture_terms(alpha=0.1, temperature=2.0), Term(loss="cross_entropy", weight=0.3, name="again"))
    assert [(t.title, t.weight) for t in control_terms(terms)] == [
        ("cross_entropy", pytest.approx(0.25)),
        ("again", pytest.approx(0.75)),
    ]
    assert [t.loss for t in control_terms(lecture_terms(alpha=0.0, temperature=1.0))] == ["cross_entropy"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    terms = [Term(loss="kd"), Term(loss="kd"), Term(loss="dkd")]
    with pytest.raises(ConfigError) as caught:
        Objective(terms, classes=2, teacher=None)
    told = " ".join(caught.value.problems)
    assert "needs a teacher" in told and "Two terms have the name kd" in told and "does not support 2 classes" in told


def test_an_option_that_the_loss_does_not_take() -> None:
    with pytest.raises(ConfigError, match="no option warmth. Its options: temperature"):
        objective([Term(loss="kd", options={"warmth": 3})])


def test_the_word_on_needs_no_quotes_in_yaml() -> None:
    written = yaml.safe_load("{loss: rkd, on: pooled, teacher_on: [stage2, 'stage:-1']}")
    term = Term.model_validate(written)
    assert term.on == "pooled" and term.teacher_on == ("stage2", "stage:-1")
    assert Term.model_validate(yaml.safe_load(yaml.safe_dump(term.to_json()))) == term


def test_a_teacher_that_knows_some_classes_is_compared_on_those() -> None:
    known = Objective(
        [Term(loss="kd", options={"temperature": 1.0}), Term(loss="cross_entropy")],
        classes=4, teacher=lambda _: Outputs(wide(1)), known=(0, 1, 3),
    )  # fmt: skip
    told = known(Outputs(wide(0)), batch())
    kl = F.kl_div(
        F.log_softmax(wide(0)[:, [0, 1, 3]], 1), F.log_softmax(wide(1)[:, [0, 1, 3]], 1),
        log_target=True, reduction="batchmean",
    )  # fmt: skip
    assert torch.isclose(told["kd"], kl)
    assert torch.isclose(told["cross_entropy"], F.cross_entropy(wide(0)[[0, 1, 3]], LABEL[[0, 1, 3]]))


def test_labels_of_classes_the_teacher_does_not_know_count_as_none() -> None:
    """LABEL holds classes 0, 2 and 1; a teacher of 0, 1 and 3 has something to say about the labels 0 and 1."""
    known = Objective([Term(loss="nkd")], classes=4, teacher=lambda _: Outputs(wide(1)), known=(0, 1, 3))
    three = Objective([Term(loss="nkd")], classes=3, teacher=lambda _: Outputs(wide(1)[:, [0, 1, 3]]))
    fewer = batch()
    fewer.label = torch.tensor([0, -100, -100, 1, -100])
    expected = three(Outputs(wide(0)[:, [0, 1, 3]]), fewer)["nkd"]
    assert torch.isclose(known(Outputs(wide(0)), batch())["nkd"], expected)


def wide(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))

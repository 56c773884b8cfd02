"""Logistic regression at its optimum, and what folding and warm starts must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from potstill.stages.finetune.choice import PROBE, TUNED, choose
from potstill.stages.finetune.logistic import BELOW, TOLERANCE, Linear, Scaling, fit, in_threads


def data(classes: int = 3, count: int = 120, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    centre = random.normal(size=(classes, width))
    label = np.arange(count) % classes
    x = centre[label] + random.normal(size=(count, width))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(label)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("penalty", [1.0, 0.01, 0.0001])
@pytest.mark.parametrize("warm", [False, True])
def test_it_finds_the_optimum(classes: int, penalty: float, warm: bool) -> None:
    """The objective is convex, so where its gradient vanishes is the minimum."""
    x, label = data(classes)
    start = fit(x, label, classes, 10 * penalty) if warm else None
    model = fit(x, label, classes, penalty, start=start)
    weight, bias = model.weight.double().requires_grad_(), model.bias.double().requires_grad_()
    loss = F.cross_entropy(x.double() @ weight.T + bias, label) + penalty / 2 * weight.square().sum()
    loss.backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 2 * TOLERANCE


def test_the_optimum_does_not_depend_on_the_start() -> None:
    x, label = data()
    start = Linear(torch.full((3, 6), 0.5), torch.tensor([1.0, 0.0, -1.0]))
    torch.testing.assert_close(
        torch.softmax(fit(x, label, 3, 0.1)(x), 1),
        torch.softmax(fit(x, label, 3, 0.1, start=start)(x), 1),
        atol=2e-3,
        rtol=0,
    )


def test_folding_the_scaling_changes_nothing() -> None:
    x, label = data()
    x = x * torch.tensor([1.0, 10, 100, 1, 1, 0]) + 7  # the last column is constant
    scaling = Scaling.of(x)
    fitted = fit(scaling(x), label, 3, 0.1)
    torch.testing.assert_close(fitted.unscaled(scaling)(x), fitted(scaling(x)), atol=1e-3, rtol=1e-3)
    assert fitted.unscaled(scaling).weight[:, -1].abs().max() == 0


@pytest.mark.parametrize("penalty", [1.0, 0.0001])
def test_a_class_without_examples_is_never_predicted(penalty: float) -> None:
    x, label = data(3)
    present = label != 1
    model = fit(x[present], label[present], 4, penalty)
    logits = model(x[present])
    assert logits[:, [1, 3]].max() <= logits[:, [0, 2]].min() - BELOW + 1e-3
    again = fit(x[present], label[present], 4, penalty, start=model)
    torch.testing.assert_close(again(x[present]).softmax(1), logits.softmax(1), atol=5e-3, rtol=0)


def test_a_single_class_is_always_predicted() -> None:
    x, _ = data(2)
    model = fit(x, torch.ones(len(x), dtype=torch.int64), 3, 0.01)
    assert (model(x).argmax(1) == 1).all() and model(x).softmax(1)[:, 1].min() > 0.99


def test_threads_keep_the_order_and_give_back_what_they_took() -> None:
    before = torch.get_num_threads()
    assert in_threads(lambda number: number**2, 5) == [0, 1, 4, 9, 16]
    assert torch.get_num_threads() == before


def test_fine_tuning_must_win_by_more_than_a_standard_error() -> None:
    probe = np.array([True] * 90 + [False] * 10)
    better, one_better = probe.copy(), probe.copy()
    better[90:98], one_better[90] = True, True
    won = choose(probe, better)
    assert (won.kept, won.difference) == (TUNED, pytest.approx(8.0))
    gain = better.astype(float) - probe
    assert won.standard_error == pytest.approx(100 * gain.std(ddof=1) / 10)
    lucky = choose(probe, one_better)
    assert lucky.difference == pytest.approx(1.0) and lucky.standard_error == pytest.approx(1.0)
    assert lucky.kept == PROBE and lucky.sentence.endswith("(+1.00 points, standard error 1.00).")
    assert choose(probe, probe).kept == PROBE and "(0.00 points" in choose(probe, probe).sentence
    assert choose(better, probe).kept == PROBE and "\N{MINUS SIGN}8.00 points" in choose(better, probe).sentence

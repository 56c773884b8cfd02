"""Losses with parameters or memories of their own: what they train, what they remember, what they keep out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses import LEARNED
from potstill.losses.contrastive import Crd, refreshed
from potstill.losses.features import ofd_margin
from potstill.losses.fusion import ReviewKD, SimKD
from potstill.losses.learned import LearnedTemperature, Ofd, Srrl, Vid
from potstill.losses.logits import kd

ROWS = torch.tensor([11, 3, 7, 20, 5, 8])  # training rows of a manifest that has others too


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias, -1, 1)
    return layer


def maps(*widths: int, size: int, seed: int) -> list[Tensor]:
    return [draw(6, width, size >> k, size >> k, seed=seed + k) for k, width in enumerate(widths)]


def examples() -> dict[str, tuple[nn.Module, Callable[[nn.Module], Tensor]]]:
    """Each loss of LEARNED and a call of it."""
    student, teacher = draw(6, 4, seed=1), draw(6, 5, seed=2)
    small, large = draw(6, 4, 4, 4, seed=1), draw(6, 5, 4, 4, seed=2)
    layers = maps(4, 6, size=8, seed=1), maps(5, 7, size=4, seed=5)
    return {
        "ctkd": (LearnedTemperature(steps=10), lambda loss: loss(student, teacher[:, :4], step=10)),
        "vid": (Vid(4), lambda loss: loss(small, large[:, :4])),
        "srrl": (Srrl(4, draw(3, 5), draw(3)), lambda loss: loss(student, teacher)),
        "ofd": (Ofd(4, batch_norm(5)), lambda loss: loss(small, large)),
        "crd": (Crd(4, 5, ROWS, width=8, negatives=16), lambda loss: loss(student, teacher, ROWS)),
        "reviewkd": (ReviewKD((4, 6), (5, 7)), lambda loss: loss(*layers)),
        "simkd": (SimKD(4, 5), lambda loss: loss(small, large)),
    }


def test_every_learned_loss_has_an_example_here():
    assert {name: type(module) for name, (module, _) in examples().items()} == LEARNED


@pytest.mark.parametrize("name", LEARNED)
def test_it_gives_one_value_a_sample_and_all_its_parameters_learn(name: str):
    module, call = examples()[name]
    value = call(module)
    assert value.shape == (6,) and value.dtype == torch.float32
    value.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("name", [n for n in LEARNED if n != "ctkd"])
def test_training_it_lowers_the_loss(name: str):
    module, call = examples()[name]
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    values = []
    for _ in range(30):
        torch.manual_seed(1)  # the same negatives for crd
        optimizer.zero_grad()
        loss = call(module).mean()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("name", LEARNED)
def test_it_runs_under_autocast_and_answers_in_float32(name: str):
    module, call = examples()[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(module)
    assert value.dtype == torch.float32 and value.isfinite().all()


def test_nothing_of_the_teacher_is_in_the_state_dict():
    assert "weight" not in Srrl(4, draw(3, 5), draw(3)).state_dict()
    assert "margin" not in Ofd(4, batch_norm(5)).state_dict()


# --- ctkd --------------------------------------------------------------------------------------------------------


def test_the_reversal_falls_along_a_cosine_from_0_to_minus_1():
    learned = LearnedTemperature(steps=10)
    assert [learned.reversal(step) for step in (0, 5, 10, 99)] == pytest.approx([0, -0.5, -1, -1])


def test_the_temperature_starts_where_published_and_is_that_of_kd():
    learned, student, teacher = LearnedTemperature(steps=10), draw(6, 4, seed=1), draw(6, 4, seed=2)
    start = 1 + 20 / (1 + math.exp(-1))
    assert learned.temperature(3).item() == pytest.approx(start)
    torch.testing.assert_close(learned(student, teacher, step=3), kd(student, teacher, temperature=start))


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (5, -0.5), (10, -1.0)])
def test_the_temperature_works_against_the_student_by_the_reversal(step: int, factor: float):
    learned, student, teacher = LearnedTemperature(steps=10), draw(6, 4, seed=1), draw(6, 4, seed=2)
    learned(student, teacher, step=step).mean().backward()
    theta = torch.tensor(1.0, requires_grad=True)
    kd(student, teacher, temperature=1 + 20 * torch.sigmoid(theta)).mean().backward()
    assert learned.theta.grad.item() == pytest.approx(factor * theta.grad.item(), rel=1e-4, abs=1e-9)


# --- vid, ofd, simkd, reviewkd ---------------------------------------------------------------------------------------


def test_vid_starts_at_the_variance_asked_for():
    variance = F.softplus(Vid(2, initial_variance=3.0).log_scale.detach()) + 1e-5
    torch.testing.assert_close(variance, torch.full((2,), 3.0))


def test_the_margin_is_the_mean_of_the_negative_half():
    weight, bias = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.3, -0.4, 0.0])
    values = weight * torch.randn(400_000, 3) + bias
    sampled = torch.stack([column[column < 0].mean() for column in values.T])
    torch.testing.assert_close(ofd_margin(weight, bias), sampled, rtol=0.02, atol=0)


@pytest.mark.parametrize("bias", [-40.0, -3.0, 0.0, 2.9, 3.05, 6.0, 30.0])
def test_the_margin_keeps_its_digits_where_the_mean_is_far_from_zero(bias: float) -> None:
    """Against numerical integration over x < 0, with the largest exponent taken out."""
    weight = 1.7
    mean = bias * weight
    x = torch.linspace(min(0.0, mean) - 12 * weight, 0, 400_001, dtype=torch.float64)
    exponent = -((x - mean) / weight).square() / 2
    density = (exponent - exponent.max()).exp()
    expected = float(torch.trapezoid(x * density, x) / torch.trapezoid(density, x))
    found = ofd_margin(torch.tensor([weight]), torch.tensor([mean]), threshold=1e-300)
    assert found.dtype == torch.float32 and float(found) == pytest.approx(expected, rel=3e-7)


def test_the_margin_of_a_silent_channel_is_finite():
    margin = ofd_margin(torch.zeros(3), torch.tensor([-0.5, 0.0, 0.5]))
    torch.testing.assert_close(margin, torch.tensor([-0.5, 0.0, 0.0]))


def test_simkd_counts_what_it_adds_to_the_deployed_student():
    convolutions = 12 * 8 + 8 * 8 * 9 + 8 * 16
    assert SimKD(12, 16).extra_parameters == convolutions + 2 * (8 + 8 + 16)


@pytest.mark.parametrize("sizes", [(8, 4), (4, 8)])
def test_simkd_compares_at_the_smaller_size(sizes: tuple[int, int]):
    loss = SimKD(3, 4).eval()
    student, teacher = draw(2, 3, sizes[0], sizes[0]), draw(2, 4, sizes[1], sizes[1])
    pooled = [F.adaptive_avg_pool2d(f, 4) for f in (student, teacher)]
    by_hand = (loss.projector(pooled[0]) - pooled[1]).square().mean((1, 2, 3))
    torch.testing.assert_close(loss(student, teacher), by_hand)


def test_reviewkd_brings_every_map_into_the_teachers_shape():
    loss, student, teacher = (
        ReviewKD((4, 6, 8), (5, 7, 9)),
        maps(4, 6, 8, size=16, seed=1),
        maps(5, 7, 9, size=8, seed=4),
    )
    fused = loss.fused(student, [t.shape[-2:] for t in teacher])
    assert [f.shape for f in fused] == [t.shape for t in teacher]


def test_reviewkd_lets_deep_layers_reach_shallow_ones_and_not_the_reverse():
    loss = ReviewKD((4, 6), (5, 7)).eval()
    student = [f.requires_grad_() for f in maps(4, 6, size=8, seed=1)]
    sizes = [f.shape[-2:] for f in student]
    shallow, deep = loss.fused(student, sizes)
    assert torch.autograd.grad(shallow.sum(), student[1], retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(deep.sum(), student[0], allow_unused=True)[0] is None


def test_the_attention_of_reviewkd_can_hand_the_deeper_map_on():
    loss = ReviewKD((4, 6), (5, 5)).eval()
    top = loss.fusions[0]
    nn.init.zeros_(top.attention.weight)
    top.attention.bias.data = torch.tensor([-50.0, 50.0])
    student = maps(4, 6, size=8, seed=1)
    shallow, _ = loss.fused(student, [f.shape[-2:] for f in student])
    deeper = F.interpolate(loss.fusions[1].narrow(student[1]), (8, 8), mode="nearest")
    torch.testing.assert_close(shallow, top.widen(deeper))


# --- crd ----------------------------------------------------------------------------------------------------------


def crd() -> Crd:
    return Crd(4, 5, ROWS, width=8, negatives=16)


def test_the_memory_moves_only_at_the_rows_of_the_batch_and_only_in_training():
    loss, index = crd(), torch.tensor([7, 5])
    before = loss.memory_student.clone(), loss.memory_teacher.clone()
    loss.eval()(draw(2, 4), draw(2, 5), index)
    assert torch.equal(loss.memory_student, before[0]) and torch.equal(loss.memory_teacher, before[1])
    loss.train()(draw(2, 4), draw(2, 5), index)
    for memory, old in zip((loss.memory_student, loss.memory_teacher), before, strict=True):
        assert (memory != old).any(1).tolist() == [False, False, True, False, True, False]
        torch.testing.assert_close(memory.norm(dim=1), torch.ones(6))


def test_a_row_keeps_the_momentum_of_what_it_was():
    memory, embedding = torch.eye(2), torch.tensor([[0.0, 1.0]])
    moved = refreshed(memory, torch.tensor([0]), embedding, momentum=0.75)
    torch.testing.assert_close(moved, torch.tensor([[3.0, 1.0], [0.0, math.sqrt(10)]]) / math.sqrt(10))


def test_the_first_batch_sets_the_constant_for_good():
    loss = crd()
    loss(draw(2, 4), draw(2, 5), ROWS[:2])
    first = loss.log_z_student.clone(), loss.log_z_teacher.clone()
    loss(draw(2, 4, seed=9), draw(2, 5, seed=9), ROWS[2:4])
    assert first[0].isfinite() and first[1].isfinite()
    assert torch.equal(loss.log_z_student, first[0]) and torch.equal(loss.log_z_teacher, first[1])


def test_two_forward_passes_may_come_before_the_backward_pass():
    loss = crd()
    total = sum(loss(draw(6, 4, seed=s), draw(6, 5, seed=s), ROWS).mean() for s in (1, 2))
    total.backward()
    assert loss.embed_student.weight.grad.isfinite().all()


def test_a_saved_crd_goes_on_where_it_stopped():
    loss, again = crd(), crd()
    loss(draw(6, 4), draw(6, 5), ROWS)
    again.load_state_dict(loss.state_dict())
    answers = []
    for module in (loss, again):
        torch.manual_seed(3)
        answers.append(module(draw(6, 4, seed=4), draw(6, 5, seed=4), ROWS))
    assert torch.equal(*answers)

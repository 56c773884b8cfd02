"""Mixup and CutMix: pure functions of (seed, step) that treat images and targets alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.data.augment import apply_mix, draw_mix, mix_targets


def drawn(kind: str, step: int = 0, *, alpha: float = 1.0, seed: int = 3, count: int = 16, size=(12, 10)):
    return draw_mix(kind, alpha, seed=seed, step=step, batch_size=count, size=size)


def same(one, other) -> bool:
    return torch.equal(one.partner, other.partner) and torch.equal(one.weight, other.weight) and one.box == other.box


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mix_depends_on_seed_and_step_alone(kind):
    assert same(drawn(kind, 5), drawn(kind, 5))
    assert not same(drawn(kind, 5), drawn(kind, 6)) and not same(drawn(kind, 5), drawn(kind, 5, seed=4))
    mix = drawn(kind)
    assert sorted(mix.partner.tolist()) == list(range(16))
    assert mix.partner.dtype == torch.int64 and mix.weight.dtype == torch.float32 and mix.weight.shape == (16,)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_mean_of_the_image_is_mixed_as_the_target(kind):
    """On images of one colour each, the mean of a mixed image is the mixed mean: for CutMix only by the real area."""
    own = torch.rand(16, generator=torch.manual_seed(0))
    images = own[:, None, None, None].expand(16, 3, 12, 10)
    probabilities = torch.stack([own, 1 - own], 1)
    for step in range(50):
        mix = drawn(kind, step)
        mean = apply_mix(images, mix).mean((1, 2, 3))
        target = mix_targets(probabilities, mix)
        assert torch.allclose(mean, target[:, 0], atol=1e-5)
        assert torch.allclose(target.sum(1), torch.ones(16))
        expected = mix.weight * own + (1 - mix.weight) * own[mix.partner]
        assert torch.allclose(mean, expected, atol=1e-5)


def test_the_weight_of_mixup_is_a_beta_draw():
    weights = np.array([drawn("mixup", step, alpha=0.4).weight[0].item() for step in range(3000)])
    assert abs(weights.mean() - 0.5) < 0.03
    assert abs(weights.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # of Beta(a, a)


def test_a_cutmix_box_stays_inside_and_is_the_partners():
    images = torch.arange(16.0)[:, None, None, None].expand(16, 1, 12, 10)
    for step in range(50):
        mix = drawn("cutmix", step)
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 12 and 0 <= left <= right <= 10
        mixed = apply_mix(images, mix)
        assert torch.equal(mixed[:, :, top:bottom, left:right], images[mix.partner][:, :, top:bottom, left:right])
        changed = (mixed != images).float().mean((1, 2, 3))
        moved = mix.partner != torch.arange(16)
        assert torch.allclose(changed[moved], 1 - mix.weight[moved], atol=1e-6)

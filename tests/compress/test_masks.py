"""Zeros where they were asked for, kept through training, and no more than that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.compress.prune import finalized, n_of_m, sparsity_of, unstructured
from potstill.errors import ConfigError
from potstill.progress import display
from tests.compress.nets import OptionAResNet, separable

IMAGE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go(scope):
    torch.manual_seed(0)
    model = OptionAResNet()
    sparse = finalized(unstructured(model, sparsity=0.7, scope=scope))
    assert sparsity_of(sparse) == pytest.approx(0.7, abs=0.001)
    assert sparsity_of(model) == 0
    assert set(sparse.state_dict()) == set(model.state_dict())
    before = torch.cat([p.flatten() for n, p in model.named_parameters() if p.dim() > 1]).abs()
    after = torch.cat([p.flatten() for n, p in sparse.named_parameters() if p.dim() > 1])
    if scope == "global":
        assert before[after == 0].max() <= before[after != 0].min()
    else:
        assert (sparse.linear.weight == 0).float().mean() == pytest.approx(0.7, abs=0.01)
    assert any("inference is not faster" in note for note in display().notes)


def test_skipped_layers_stay_dense():
    sparse = finalized(unstructured(OptionAResNet(), sparsity=0.5, skip=["conv1", "linear"]))
    assert (sparse.conv1.weight != 0).all() and (sparse.linear.weight != 0).all()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
def test_n_of_every_m_inputs_remain(n, m):
    torch.manual_seed(0)
    model = separable()
    sparse = finalized(n_of_m(model, n=n, m=m))
    for i in (6, 9, 12, 17):
        weight, dense = sparse[i].weight.movedim(1, -1), model[i].weight.movedim(1, -1)
        parts, dense = weight.reshape(-1, m), dense.reshape(-1, m)
        assert ((parts != 0).sum(1) == n).all()
        assert torch.equal(parts.abs().amax(1), dense.abs().amax(1))
    assert (sparse[0].weight != 0).all()
    assert any("The layer 0 stays dense: its 3 input channels" in note for note in display().notes)


def test_masks_hold_while_training():
    model = n_of_m(nn.Sequential(nn.Linear(8, 8)), n=2, m=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    assert sparsity_of(model) == 0.5
    final = finalized(model)
    assert sparsity_of(final) == 0.5
    assert type(final[0]) is nn.Linear
    assert torch.equal(final(torch.ones(1, 8)), model(torch.ones(1, 8)))  # the masked model goes on working


def test_shares_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="sparsity must be between 0 and 1 .* but is 1"):
        unstructured(OptionAResNet(), sparsity=1)
    with pytest.raises(ConfigError, match="n is 4 and m is 4"):
        n_of_m(OptionAResNet(), n=4, m=4)

"""Stored logits: all of them, or the best k with the mass of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.teachers import logit_codec


def logits(rows: int = 50, classes: int = 200) -> torch.Tensor:
    return 4 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


def tensors(stored: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(values.astype(np.int64 if name == "classes" else np.float16))
        for name, values in stored.items()
    }


def test_all_classes_come_back_in_half_precision() -> None:
    stored = logit_codec.from_logits(logits(), None)
    assert list(stored) == ["logits"] and stored["logits"].dtype == np.float16
    assert torch.equal(logit_codec.to_logits(tensors(stored), 200), logits().half().float())


def test_the_best_are_exact_and_the_rest_has_its_mass() -> None:
    stored = logit_codec.from_logits(logits(), 16)
    assert {n: (v.dtype.name, v.shape) for n, v in stored.items()} == {
        "values": ("float16", (50, 16)), "classes": ("uint16", (50, 16)), "rest": ("float16", (50,)),
    }  # fmt: skip
    truth = logits().double().softmax(1)
    read = logit_codec.to_logits(tensors(stored), 200).double().softmax(1)
    best = truth.topk(16, 1).indices
    assert torch.allclose(read.gather(1, best), truth.gather(1, best), rtol=0.01)
    others = 1 - truth.gather(1, best).sum(1)
    assert torch.allclose(1 - read.gather(1, best).sum(1), others, rtol=0.01) and (read.sum(1) - 1).abs().max() < 1e-9
    spread = read.scatter(1, best, torch.nan)
    assert torch.equal(spread.nanmedian(1).values, spread.nan_to_num(0).max(1).values)  # all others are alike


def test_classes_beyond_16_bits_and_wild_logits() -> None:
    wild = torch.zeros(2, 70_000)
    wild[0, 69_999], wild[1, 5] = 1e9, -1e9
    stored = logit_codec.from_logits(wild, 4)
    assert stored["classes"].dtype == np.int32 and stored["classes"][0, 0] == 69_999
    assert all(np.isfinite(values).all() for values in stored.values())
    assert np.isfinite(logit_codec.from_logits(wild, None)["logits"]).all()


@pytest.mark.parametrize(("classes", "best"), [(10, None), (1000, None), (1000, 16), (100_000, 16)])
def test_bytes_of_a_row(classes: int, best: int | None) -> None:
    stored = logit_codec.from_logits(torch.zeros(3, classes), best)
    assert sum(values.nbytes for values in stored.values()) == 3 * logit_codec.row_bytes(classes, best)


def test_only_large_stores_of_many_classes_are_cut() -> None:
    assert logit_codec.kept(10, 10**9, 100) is None
    assert logit_codec.kept(1000, 50_000, 2) is None
    assert logit_codec.kept(1000, 1_280_000, 1) == 16

"""Distillation with images of another folder, without labels: in training only, and never a copy of a test image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import potstill
from tests.selftrain.worlds import labelled, more, pixels, pool_file

SMALL = {"teacher": {"model": "builtin:mlp", "train": {"epochs": 1}}, "student": "builtin:mlp", "epochs": 1, "seeds": 1}


def test_a_student_learns_from_them_and_copies_of_test_images_are_left_out(tmp_path: Path) -> None:
    data, made = labelled(tmp_path)
    copies = pixels(made, made.rows("test")[:7])
    pool = pool_file(tmp_path, np.concatenate([more(50), copies]))
    plain = potstill.distill(data, out=tmp_path / "plain", **SMALL)  # pyright: ignore[reportArgumentType]
    run = potstill.distill(data, unlabelled=pool, out=tmp_path / "pool", **SMALL)  # pyright: ignore[reportArgumentType]
    splits, before = run.summary["data"]["splits"], plain.summary["data"]["splits"]
    assert 40 <= splits["unlabelled"] <= 50 and before["unlabelled"] == 0
    assert {name: splits[name] for name in ("labelled", "validation", "test")} == {
        name: before[name] for name in ("labelled", "validation", "test")
    }
    pool.unlink()
    assert potstill.evaluate(tmp_path / "pool", data).accuracy == pytest.approx(
        run.summary["ship"]["accuracy"], abs=1e-3
    )


def test_changed_images_of_the_pool_are_told(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    pool = pool_file(tmp_path, more(50))
    potstill.distill(data, unlabelled=pool, out=tmp_path / "run", **SMALL)  # pyright: ignore[reportArgumentType]
    pool_file(tmp_path, more(60))
    with pytest.raises(potstill.UserError, match="images of .*pool.npy changed"):
        potstill.distill(data, unlabelled=pool, out=tmp_path / "run", **SMALL)  # pyright: ignore[reportArgumentType]

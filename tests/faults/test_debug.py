"""`debug` repeats the step at which a training diverged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import potstill
from potstill.errors import RunError, UserError
from potstill.training import divergence
from tests.faults.damage import write_photos


@pytest.mark.slow
def test_the_step_that_diverged_is_repeated_with_the_same_values(tmp_path: Path) -> None:
    photos, run = write_photos(tmp_path / "photos"), tmp_path / "run"
    teacher = {"model": "builtin:mlp", "train": {"epochs": 2, "batch_size": 8}}
    wild = {"epochs": 2, "batch_size": 8, "optimizer": "sgd", "lr": 1e30, "warmup": 0.0}
    with pytest.raises(RunError, match="The failing step is kept in .*diverged"):
        potstill.distill(photos, teacher=teacher, student="builtin:mlp", seeds=1, train=wild, out=run)
    kept = run / "control" / "seed-0" / divergence.FOLDER
    facts = json.loads((kept / divergence.FACTS).read_text())
    for folder in (run, kept, run):
        result = potstill.debug(folder).summary
        assert result["same"] and result["terms"] == facts["terms"] and result["step"] == facts["step"]
    assert result["layers"] or result["gradients"] or result["weights"]
    assert len(result["images"]) == 8 and "the same values as before" in str(potstill.debug(run))


def test_a_folder_without_a_kept_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none. Give the run that diverged"):
        potstill.debug(tmp_path)
    (tmp_path / divergence.FOLDER).mkdir()
    (tmp_path / divergence.FOLDER / divergence.FACTS).write_text("{}")
    with pytest.raises(UserError, match="is in no run folder"):
        potstill.debug(tmp_path)

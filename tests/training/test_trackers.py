"""The same figures as metrics.jsonl go to a tracker, under the name of the training, and no result changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import potstill
from potstill import tracking
from potstill.training import trackers

ROW = {
    "epoch": 2,
    "step": 20,
    "learning_rate": 0.01,
    "train": {"loss": 0.5, "kd": 0.3},
    "validation": {"accuracy": 91.0},
    "seconds": 1.5,
}


def test_figures_of_a_row() -> None:
    assert trackers.figures(ROW) == {
        "learning_rate": 0.01,
        "train/loss": 0.5,
        "train/kd": 0.3,
        "validation/accuracy": 91.0,
    }


def test_no_tracker_by_default(tmp_path: Path) -> None:
    assert trackers.opened(tmp_path, 0) is None


def test_choosing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.VARIABLE, raising=False)
    with pytest.raises(potstill.UserError, match="no tracker 'wandb'. Choose one of tensorboard, trackio"):
        potstill.set_tracking("wandb")  # type: ignore[arg-type]
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(potstill.UserError, match=r"pip install 'potstill\[trackio\]'"):
        potstill.set_tracking("trackio")
    assert tracking.chosen() is None


@pytest.mark.slow
def test_tensorboard_gets_what_metrics_jsonl_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    with tracking.tracked("tensorboard"):
        potstill.distill(
            "digits",
            teacher="builtin:mlp",
            student="builtin:mlp",
            teacher_epochs=1,
            epochs=2,
            seeds=1,
            limit=100,
            export={"int8": False},
            out="runs/tracked",
        )
    rows = (tmp_path / "runs/tracked/distill/seed-0/metrics.jsonl").read_text().splitlines()
    events = EventAccumulator(str(tmp_path / "tensorboard/runs/tracked/distill/seed-0"))
    events.Reload()
    for name in ("train/loss", "train/kd", "validation/accuracy"):
        split, _, figure = name.partition("/")
        written = [(event.step, event.value) for event in events.Scalars(name)]
        assert written == [(row["step"], pytest.approx(row[split][figure])) for row in map(json.loads, rows)]
    assert {"control", "distill", "teacher"} == {one.name for one in (tmp_path / "tensorboard/runs/tracked").iterdir()}

"""A training that diverges: advice that works, the failing step kept, no weights that are not finite."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from potstill.errors import ModelError, RunError
from potstill.model_files.folder import save_model
from potstill.stages.run_folder import has_failed_step, has_results
from potstill.teachers.live import LiveTeacher
from potstill.training import divergence, engine
from potstill.training.loop import TrainingLoop
from potstill.training.settings import TrainConfig
from tests.test_engine import CONFIG, model, teacher, train


def diverges(folder: Path, config: TrainConfig) -> str:
    with pytest.raises(RunError, match="Training diverged") as caught:
        train(folder, LiveTeacher(teacher()), config)
    return str(caught.value)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 1e30), ("sgd", 1e18), ("adamw", 1e30)])
def test_the_advised_learning_rate_works(tmp_path: Path, optimizer: str, lr: float) -> None:
    config = CONFIG.model_copy(update={"optimizer": optimizer, "lr": lr, "warmup": 0.0})
    message = diverges(tmp_path, config)
    found = re.search(r"([\d.e-]+) stayed finite", message)
    assert found, message
    _, rows = train(tmp_path, LiveTeacher(teacher()), config.model_copy(update={"lr": float(found[1])}))
    assert rows[-1]["train"]["loss"] < 2 * rows[0]["train"]["loss"] and not has_failed_step(tmp_path)


def test_the_failing_step_is_kept_and_the_folder_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights become infinite in a step of the second epoch."""
    step = TrainingLoop.train_step

    def breaks(self: TrainingLoop) -> None:
        step(self)
        if self.step == 7:
            with torch.no_grad():
                self.parameters[0].fill_(torch.inf)

    monkeypatch.setattr(TrainingLoop, "train_step", breaks)
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 1e9)
    assert ", step 7" in diverges(tmp_path, CONFIG)
    facts = json.loads((tmp_path / divergence.FOLDER / divergence.FACTS).read_text())
    assert facts["step"] == 6 and len(facts["index"]) == 32 == len(facts["images"]) and facts["seed"] == 0
    assert has_failed_step(tmp_path) and not has_results(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    broken = model(1)
    next(broken.parameters()).data[0] = torch.inf
    with pytest.raises(ModelError, match="not finite"):
        save_model(broken, tmp_path)
    assert not list(tmp_path.iterdir())

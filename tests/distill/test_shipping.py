"""The student that is delivered: the best on validation, by the weights that are kept."""

from __future__ import annotations

from pathlib import Path

from potstill.stages.distill.shipping import best_seed
from potstill.stages.training import Trained


def test_the_best_seed_is_that_of_the_kept_weights() -> None:
    def trained(last: float, kept: float) -> Trained:
        return Trained(Path("x"), 0, {"validation_accuracy": {"last": last, "best": kept, "kept": kept}})

    assert best_seed([trained(90.0, 91.0), trained(80.0, 95.0)]) == 1

"""The search for a method: halving as it should be, the winner on validation, the cost told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import potstill
from potstill import config
from potstill.objectives.objective import Term, check
from potstill.stages.distill import search as search
from potstill.stages.recipe import Recipe
from tests.test_road import write_tree

TRAIN = {"epochs": 3, "batch_size": 32, "lr": 0.01}


def recipe(**settings: Any) -> Recipe:
    return config.build(Recipe, {"data": {"path": "x"}, "objective": {"method": "auto"}, "train": TRAIN} | settings)


def test_rounds_share_the_budget_and_keep_a_third() -> None:
    assert search.rounds(14, 60, 30) == [(14, 1), (5, 4), (2, 10)]
    assert search.rounds(14, 6000, 30) == [(14, 30), (5, 30), (2, 30)]  # no trial is longer than a training
    spent = sum(size * epochs for size, epochs in search.rounds(14, 600, 300))
    assert 540 <= spent <= 660


@pytest.mark.parametrize("classes", [2, 10])
def test_every_candidate_is_valid(classes: int) -> None:
    found = search.candidates(classes)
    for terms in found.values():
        check(terms, classes=classes, teacher=True)
    assert len({json.dumps([term.to_json() for term in terms]) for terms in found.values()}) == len(found)


def test_the_best_on_validation_wins_and_only_the_better_third_trains_longer() -> None:
    worth = {name: float(number) for number, name in enumerate(search.candidates(10))}
    by_terms = {json.dumps([t.to_json() for t in terms]): name for name, terms in search.candidates(10).items()}
    asked: list[tuple[str, int]] = []

    def trial(terms: Sequence[Term], epochs: int, folder: str) -> tuple[float, float]:
        name = by_terms[json.dumps([term.to_json() for term in terms])]
        asked.append((name, epochs))
        return worth[name], 2.0

    found = search.choose(recipe(), classes=10, validation_images=77, trial=trial)
    assert found.name == "dkd T=4 beta=8" and found.terms == search.candidates(10)[found.name]
    shortest = min(epochs for _, epochs in asked)
    longer = {name for name, epochs in asked if epochs > shortest} or {name for name, _ in asked[14:]}
    assert longer == set(sorted(worth, key=lambda name: -worth[name])[:5])
    assert found.record["trials"] == len(asked) == 14 + 5 + 2
    assert found.record["epochs"] == sum(epochs for _, epochs in asked)
    assert found.record["seconds"] == 2.0 * len(asked)
    assert "77 validation images" in found.sentence and "21 trainings" in found.sentence


def test_on_a_tie_the_plainest_wins() -> None:
    found = search.choose(recipe(), classes=10, validation_images=9, trial=lambda terms, epochs, name: (50.0, 0.0))
    assert found.name == next(iter(search.candidates(10)))


def test_auto_beside_terms_of_ones_own_is_refused() -> None:
    with pytest.raises(potstill.UserError, match="The search determines the terms"):
        recipe(objective={"method": "auto", "temperature": 4})


@pytest.mark.slow
def test_a_run_that_chooses_says_so(tmp_path: Path) -> None:
    settings = {
        "name": "auto",
        "data": {"path": str(write_tree(tmp_path / "tree"))},
        "teacher": {"model": "builtin:cnn", "train": {**TRAIN, "epochs": 1}},
        "student": {"model": "builtin:mlp", "options": {"hidden": 8}},
        "objective": {"method": "auto", "search": 3},
        "train": {**TRAIN, "epochs": 2},
        "seeds": 1,
        "export": {"int8": False},
    }
    done = potstill.run(settings, out=tmp_path / "run").summary
    told = done["search"]
    assert told["candidates"] == 14 and told["trials"] == 21 and told["validation_images"] == 30
    assert any("search on 30 validation images" in note for note in done["notes"])
    chosen = yaml.safe_load((tmp_path / "run" / "search" / "chosen.yaml").read_text())
    assert chosen["objective"]["terms"] == told["terms"]
    trained = json.loads((tmp_path / "run" / "distill" / "seed-0" / "manifest.json").read_text())
    assert trained["inputs"]["terms"] == told["terms"]
    assert config.build(Recipe, chosen).objective.method is None

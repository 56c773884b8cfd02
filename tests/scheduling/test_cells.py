"""Cells that are packed, sent and replayed give what one process gives, bit for bit; label in parts; the journal."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import potstill
from potstill.config import build
from potstill.errors import ConfigError, RunError, UserError
from potstill.exporters.footprint import Footprint
from potstill.scheduling import Processes, Serial, carried_out, opened, worker
from potstill.stages.distill.run import run_recipe
from potstill.stages.label import LabelConfig, run_label
from potstill.stages.recipe import Recipe
from potstill.stages.selftrain import SelftrainConfig, selftrain
from potstill.stages.shrink.candidates import Candidate
from potstill.stages.shrink.costs import Costed
from potstill.stages.shrink.trials import Trials
from potstill.teachers import prediction_store
from tests.test_road import write_tree

TRAIN = {"epochs": 2, "batch_size": 16, "lr": 0.01}


class Packed(Serial):
    """Carries out cells as another process would, in this one."""

    parallel, count = True, 2

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def wait(self, title: str) -> list[Any]:
        cells, self._cells = self._cells, []
        self.places += [str(cell.place) for cell in cells]
        sent = [pickle.loads(pickle.dumps((worker.sender(), cell))) for cell in cells]
        return worker.unpacked([worker.carry_out(*each) for each in sent])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"), count=60)


def weights(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}


def recipe(tree: Path) -> Recipe:
    student = {"model": "builtin:mlp", "options": {"hidden": 8}}
    settings = {
        "data": {"path": str(tree)}, "teacher": {"model": "builtin:mlp", "options": {"hidden": 16}, "train": TRAIN},
        "student": student, "train": TRAIN, "seeds": 1, "export": {"int8": False},
        "comparisons": {"hot": {"objective.temperature": 4}},
    }  # fmt: skip
    return build(Recipe, settings)


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial") / "run"
    run_recipe(recipe(tree), folder)
    return folder


@pytest.mark.slow
def test_a_run_is_replayed(run: Path, tree: Path, tmp_path: Path) -> None:
    packed = Packed()
    run_recipe(recipe(tree), tmp_path / "run", scheduler=packed)
    assert weights(run) == weights(tmp_path / "run")
    assert packed.places[2:] == [
        str(tmp_path / "run" / "comparisons" / "hot" / kind / "seed-0") for kind in ("control", "distill")
    ]


@pytest.mark.slow
def test_a_self_training_is_replayed(tree: Path, tmp_path: Path) -> None:
    settings = {
        "data": {"path": str(tree)}, "labels": 30, "teachers": [{"model": "builtin:mlp"}], "folds": 2, "rounds": 1,
        "student": {"model": "builtin:mlp"}, "steps": 20, "teacher_steps": 20, "seeds": 2, "train": {"batch_size": 16},
        "max_distance": 100,
    }  # fmt: skip
    config, packed = build(SelftrainConfig, settings), Packed()
    selftrain(config, tmp_path / "serial")
    selftrain(config, tmp_path / "packed", scheduler=packed)
    kinds = {Path(place).relative_to(tmp_path / "packed").parts[0] for place in packed.places}
    assert {"teachers", "labels-only-clean", "crossfit"} <= kinds
    assert weights(tmp_path / "serial") == weights(tmp_path / "packed")


@pytest.mark.slow
def test_parts_of_labels_make_one_store(run: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_store, "PART_ROWS", 8)
    settings = {"data": {"path": str(tree)}, "teacher": {"model": str(run)}, "views": 2}
    config = build(LabelConfig, settings)
    whole = run_label(config, tmp_path / "whole")
    packed = Packed()
    assert run_label(config, tmp_path / "packed", scheduler=packed)["labels"] == whole["labels"]
    assert len(packed.places) == 8
    parts = tmp_path / "parts"
    assert run_label(config, parts, part=(2, 3)) == {"part": {"number": 3, "of": 3, "finished": [3]}}
    with pytest.raises(RunError, match="was made with other settings: views is 2 there, 3 here"):
        run_label(config.model_copy(update={"views": 3}), parts, part=(0, 3))
    assert run_label(config, parts, part=(0, 3))["part"]["finished"] == [1, 3]
    stores = [weights(tmp_path / name / "logits") for name in ("whole", "packed")]
    assert weights(parts / "logits").items() < stores[0].items() and stores[0] == stores[1]
    assert run_label(config, parts, part=(1, 3))["labels"] == whole["labels"]
    assert weights(parts / "logits") == stores[0]


def test_impossible_requests_are_told_at_once(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as error, opened(workers=0, ray="auto", gpus=20):
        pass
    assert len(error.value.problems) == 3
    with pytest.raises(ConfigError, match="give --ray too"):
        potstill.run(recipe(tree).to_json(), gpus=0.5, out=tmp_path / "run")
    for part, sentence in (("0/3", "must be I/N"), ("x", "must be I/N")):
        with pytest.raises(ConfigError, match=sentence):
            potstill.label(tree, teacher="builtin:mlp", part=part, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="needs the folder that all parts share"):
        potstill.label(tree, teacher="builtin:mlp", part="1/2")
    with pytest.raises(ConfigError, match="builtin:mlp would be trained by every part first"):
        potstill.label(tree, teacher="builtin:mlp", part="1/2", out=tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="leave out --workers and --ray, or torchrun"), opened(workers=2):
        pass
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass
class Told:
    """A cell that does as it is told."""

    do: Callable[[], Any]
    place: Path = Path()

    def carry_out(self) -> Any:
        return self.do()


def mistaken() -> None:
    raise UserError("one thing", "another")


class Fatal(Told):
    """A cell that ends the process as soon as it arrives there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_mistakes_come_back_as_they_are_and_a_killed_worker_is_told() -> None:
    with pytest.raises(UserError) as error:
        carried_out(Packed(), [Told(mistaken), Told(mistaken)], "")
    assert error.value.problems == ["one thing", "another"]
    with Processes(2) as processes, pytest.raises(RunError, match="was killed from outside, usually because memory"):
        carried_out(processes, [Fatal(mistaken)], "")


def test_two_commands_on_one_journal_have_one_trial_for_each_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(width: int) -> Costed:
        return Costed(Candidate("n", options={"width": width}), Footprint(8, *[width] * 7))

    here, there = Trials(tmp_path), Trials(tmp_path)
    here.report(one(1), 0, 50.0)
    there.report(one(2), 0, 60.0)
    there.report(one(1), 1, 70.0)
    unaware = Trials(tmp_path)
    number = unaware._number
    seen = iter([None])
    monkeypatch.setattr(unaware, "_number", lambda name: next(seen, number(name)))
    unaware.report(one(2), 1, 80.0)  # it began a second trial of a candidate, which does not count
    here.finish({"n-w1": 70.0, "n-w2": 80.0}, {"n-w2"})
    trials = {t.user_attrs["name"]: t for t in reversed(Trials(tmp_path)._study.trials)}
    assert trials["n-w1"].intermediate_values == {0: 50.0, 1: 70.0}
    assert trials["n-w2"].intermediate_values == {0: 60.0, 1: 80.0}
    assert [t.state.name for t in Trials(tmp_path)._study.trials] == ["PRUNED", "COMPLETE", "FAIL"]
    assert np.isclose(trials["n-w2"].value or 0, 80.0)

"""Settings: every mistake at once, each in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from potstill.config import Config, build, override, read_yaml
from potstill.errors import ConfigError
from potstill.stages.compress.prune import PruneConfig
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.finetune.settings import FinetuneConfig
from potstill.stages.recipe import Recipe


class Inner(Config):
    epochs: int = Field(default=3, ge=1)
    lr: float = Field(default=0.1, gt=0)


class Outer(Config):
    name: str
    train: Inner = Inner()


def test_all_mistakes_in_one_error_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"train": {"epoch": 5, "lr": -1, "epochs": "many"}})
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "name: the recipe must give it" in problems
    assert "train.epoch: the recipe has no such key. Did you mean 'epochs'?" in problems
    assert "train.lr: must be greater than 0, but was -1." in problems
    assert "train.epochs: must be an integer, but was 'many'." in problems


def test_unknown_key_with_no_neighbour_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Known keys there: epochs, lr"):
        build(Outer, {"name": "x", "train": {"zzz": 1}})


def test_overrides_reach_inside_and_leave_the_original() -> None:
    original = {"name": "x", "train": {"lr": 0.5}}
    changed = override(original, ["train.epochs=7", "name=y", "train.lr=1e-2"])
    built = build(Outer, changed)
    assert (built.name, built.train.epochs, built.train.lr) == ("y", 7, 0.01)
    assert original == {"name": "x", "train": {"lr": 0.5}}


def test_overrides_that_are_none() -> None:
    with pytest.raises(ConfigError) as caught:
        override({}, ["epochs", "=3"])
    assert len(caught.value.problems) == 2


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().lr = 3  # type: ignore[misc]


@pytest.mark.parametrize(("text", "told"), [("a: [1", "not valid YAML"), ("- 1\n- 2", "`key: value` lines")])
def test_files_that_are_no_recipe(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_yaml(file)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe at"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_overrides_reach_into_lists_by_number() -> None:
    original = {"teachers": [{"model": "a"}, {"model": "b"}]}
    changed = override(original, ["teachers.1.weights=w.safetensors", "teachers.0.card.size=[9, 9]"])
    assert changed["teachers"] == [{"model": "a", "card": {"size": [9, 9]}}, {"model": "b", "weights": "w.safetensors"}]
    assert original["teachers"] == [{"model": "a"}, {"model": "b"}]
    with pytest.raises(ConfigError, match="'2' is no place in a list of 2"):
        override(original, ["teachers.2.model=c"])


class Deep(Config):
    inner: Inner = Inner(epochs=7)


class Command(Config):
    train: Inner = Inner(lr=0.5)
    deep: Deep = Deep(inner=Inner(lr=0.3))


def test_a_group_given_in_part_keeps_the_other_defaults_of_its_command() -> None:
    built = build(Command, {"train": {"epochs": 9}, "deep": {"inner": {"epochs": 1}}})
    assert (built.train.epochs, built.train.lr) == (9, 0.5)
    assert (built.deep.inner.epochs, built.deep.inner.lr) == (1, 0.3)
    assert build(Command, {}).deep.inner.lr == 0.3
    assert build(Command, {"train": Inner(epochs=4)}).train.lr == 0.1, "a whole group is taken as it is"


def test_every_command_keeps_its_defaults_where_a_part_is_given() -> None:
    prune = build(PruneConfig, {"model": "m", "keep": 0.5, "train": {"epochs": 12}, "objective": {"alpha": 0.3}})
    assert (prune.train.optimizer, prune.train.lr, prune.train.epochs) == ("sgd", 0.02, 12)
    assert (prune.objective.alpha, prune.objective.temperature) == (0.3, 4)
    quantize = build(QuantizeConfig, {"model": "m", "mode": "qat", "train": {"epochs": 2, "lr": 0.001}})
    assert (quantize.train.weight_decay, quantize.train.lr, quantize.train.epochs) == (0, 0.001, 2)
    assert build(Recipe, {"data": {"path": "d"}, "teacher": {"train": {"lr": 0.1}}}).teacher.train.epochs == 10
    finetune = build(FinetuneConfig, {"model": "m", "data": {"path": "d"}, "train": {"epochs": 2}})
    assert (finetune.train.lr, finetune.train.select) == (0.0001, "best")


def test_sgd_has_a_learning_rate_of_its_own_where_none_is_given() -> None:
    def rate(kind: type[Config], **settings: Any) -> float:
        needed = {"model": "m", "keep": 0.5} if kind is PruneConfig else {"data": {"path": "d"}}
        return build(kind, {**needed, "train": settings}).train.lr  # pyright: ignore[reportAttributeAccessIssue]

    assert (rate(Recipe), rate(Recipe, optimizer="adamw"), rate(Recipe, optimizer="sgd")) == (0.002, 0.002, 0.05)
    assert rate(Recipe, optimizer="sgd", lr=0.3) == 0.3
    assert (rate(PruneConfig), rate(PruneConfig, optimizer="sgd")) == (0.02, 0.02)
    scratch = build(FinetuneConfig, {"model": "m", "data": {"path": "d"}, "from_scratch": True})
    assert (scratch.train.lr, scratch.train.ema) == (0.002, 0.999)


def test_terms_of_ones_own_do_not_meet_the_temperature_of_a_command() -> None:
    built = build(PruneConfig, {"model": "m", "keep": 0.5, "objective": {"terms": [{"loss": "kd"}]}})
    assert [term.loss for term in built.objective.terms] == ["kd"]
    assert Recipe(data={"path": "d"}, objective=built.objective).objective.terms

"""Settings: every mistake at once, each in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from potstill.config import Config, build, override, read_yaml
from potstill.errors import ConfigError


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
    assert "train.epochs: must be a integer" in problems.replace("an integer", "a integer") and "'many'" in problems


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

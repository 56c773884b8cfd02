"""JSON that is read back has one schema a kind: another content is a sentence that names the key."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill import artifacts
from potstill.artifacts import read_json, read_object
from potstill.errors import ModelError, RunError, UserError
from potstill.model_files.folder import load_model, read_card, save_model
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.card_record import card_from_json
from potstill.report.read import read_run
from potstill.stages.teacher.soft_labels import _facts
from potstill.yaml_text import parse_yaml

CARD = zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=1).card.to_json()
ODD: list[Any] = [None, True, -1, 1e308, float("nan"), "x", "", [], [None], {}, {"a": 1}, 10**30, [[["x"]]]]


def test_a_card_returns_as_it_was() -> None:
    assert card_from_json(CARD).to_json() == CARD


@pytest.mark.parametrize("key", [*CARD, "surprise"])
def test_a_card_with_another_value_is_a_card_or_a_sentence(key: str) -> None:
    for value in ODD:
        try:
            assert card_from_json({**CARD, key: value}).to_json()
        except ModelError as error:
            assert "The card cannot be used" in str(error) and "\n" not in str(error)
    if key in ("model", "classes", "size", "std"):
        with pytest.raises(ModelError, match=f"{key}: Field required"):
            card_from_json({name: value for name, value in CARD.items() if name != key})


WRONG = {
    "std": ([0.0], "std.0: Input should be greater than 0"),
    "classes": (["a", "a"], "the class 'a' occurs twice"),
    "size": ([10**6, 10**6], "size.0: Input should be less than or equal to 16384"),
    "crop": ([16384, 16384], "at most 16.8 million pixels"),
    "mean": ([0.1, 0.2], "one value for each of 1 channels"),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_card_is_named_with_its_file(tmp_path: Path, key: str) -> None:
    value, sentence = WRONG[key]
    save_model(zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=1), tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({**CARD, key: value}))
    with pytest.raises(ModelError, match=sentence) as caught:
        load_model(tmp_path)
    assert str(tmp_path / "card.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "null", "3", "{", "[" * 3000, '"x"', "{}", '{"folder": 3}', "\x00"])
def test_no_content_of_a_record_is_a_traceback(tmp_path: Path, content: str) -> None:
    for name in ("card.json", "summary.json", "student.json", "labels.json", "manifest.json"):
        (tmp_path / name).write_text(content)
    (tmp_path / "model.safetensors").write_bytes(b"")
    for read in (read_card, read_run, lambda folder: find(str(folder)), _facts):
        with pytest.raises(UserError):
            read(tmp_path)
    assert artifacts.damages(tmp_path) or isinstance(read_object(tmp_path / "manifest.json"), dict)


LABELS = {
    "source": {"images": "x", "augmentation": "y"}, "card": CARD, "teacher": "t", "accuracy": 90.0, "known": None,
    "views": 2, "seed": 0, "own_size": 0, "augment": "auto",
}  # fmt: skip


@pytest.mark.parametrize("key", ["source", "card", "views", "seed", "own_size", "known"])
def test_soft_labels_name_the_wrong_key(tmp_path: Path, key: str) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(LABELS))
    assert _facts(tmp_path) == LABELS
    changed = copy.deepcopy(LABELS)
    changed[key] = "x"
    file.write_text(json.dumps(changed))
    with pytest.raises(RunError, match=f"labels.json is damaged or was edited: {key}: "):
        _facts(tmp_path)


def test_json_that_is_nested_too_deep_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="is damaged"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("start", ["[", "{a: ", "- "])
def test_yaml_that_is_nested_too_deep_is_refused_at_once(start: str) -> None:
    """5,000 brackets took over 20 seconds on a busy machine before they were refused."""
    with pytest.raises(yaml.YAMLError, match="nested more than 50 deep|recursion"):
        parse_yaml(f"x: {start * 100_000}" if start != "- " else start * 100_000)

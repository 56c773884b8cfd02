"""How a recipe spells a policy, and what is said about one that is spelled wrong."""

from __future__ import annotations

import json

import pytest

from potstill.data.augment import Policy, default_policy, parse_policy
from potstill.data.augment.policy import NAMED, OPERATIONS
from potstill.errors import ConfigError


def names(spec: object, **options: str) -> list[str]:
    return [operation.name for operation in parse_policy(spec, **options).operations]


@pytest.mark.parametrize("spec", [*NAMED, *OPERATIONS, [{"shift": 2}, {"erase": {"p": 1, "fill": "zero"}}, "photo"]])
def test_a_policy_survives_json(spec):
    policy = parse_policy(spec)
    assert parse_policy(json.loads(json.dumps(policy.to_json()))) == policy
    assert hash(policy) == hash(parse_policy(policy))


def test_the_ways_to_spell_one_operation():
    wanted = parse_policy([{"shift": {"pixels": 3}}])
    assert parse_policy({"shift": 3}) == parse_policy([{"shift": 3}]) == wanted
    usual = parse_policy("flip")
    assert parse_policy([{"flip": None}]) == parse_policy([{"flip": True}]) == parse_policy([{"flip": 0.5}]) == usual
    assert parse_policy("none") == parse_policy([]) == Policy()
    assert parse_policy([{"random-resized-crop": 0.35}, "flip"]) == parse_policy("photo")


def test_a_named_policy_may_be_extended():
    assert names(["cifar", "trivialaugment"]) == ["pad-crop", "flip", "trivialaugment"]
    assert names(["auto", {"erase": 0.1}], auto="photo") == ["random-resized-crop", "flip", "erase"]
    assert names("auto", auto="shift") == ["shift"]


def test_every_mistake_is_told_at_once():
    wrong = [{"shift": 0}, "flp", {"flip": {"q": 1}}, 3, {"erase": {"scale": [0.5, 0.1]}}, {"autoaugment": "cifar"}]
    with pytest.raises(ConfigError) as caught:
        parse_policy(wrong)
    problems = caught.value.problems
    assert len(problems) == 6
    assert problems[0] == "augment.shift.pixels: must be greater than or equal to 1, but was 0."
    assert "or policy 'flp'. Did you mean 'flip'?" in problems[1] and "trivialaugment" in problems[1]
    assert problems[2].startswith("augment.flip.q: ")
    assert "but one is 3" in problems[3]
    assert problems[4] == "augment.erase.scale: must be [min, max], but was [0.5, 0.1]."
    assert "'cifar10', 'imagenet' or 'svhn'" in problems[5]


def test_what_is_no_policy_at_all():
    with pytest.raises(ConfigError, match="augment must be the name of a policy or a list"):
        parse_policy(7)


@pytest.mark.parametrize(
    ("side", "channels", "classes", "policy"),
    [
        (28, 1, ["zero", "one"], "shift"),
        (32, 3, ["0", "1", "2"], "shift"),
        (512, 1, ["ill", "well"], "shift"),
        (32, 3, ["cat", "dog"], "cifar"),
        (64, 3, [], "cifar"),
        (224, 3, ["cat", "dog"], "photo"),
        (224, 3, ["bright", "copyright"], "photo"),
        (224, 3, ["turn_left", "turn_right"], "photo-no-flip"),
        (224, 3, ["Counterclockwise", "still"], "photo-no-flip"),
        (224, 3, ["우회전 금지", "정지"], "photo-no-flip"),
        (32, 3, ["00", "07", "42"], "cifar-no-flip"),
        (32, 3, ["One", "two", "zero"], "cifar-no-flip"),
    ],
)
def test_defaults_by_kind_of_image(side, channels, classes, policy):
    assert default_policy(height=side, width=side, channels=channels, classes=classes) == policy
    assert policy in NAMED


def test_each_operation_names_its_main_setting():
    for name, kind in OPERATIONS.items():
        assert kind.main in kind.model_fields, name
        assert kind.__doc__ and kind.name == name

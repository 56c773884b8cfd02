"""`Config`: frozen, typed settings from YAML and `key=value`, with every mistake reported at once.

A setting that is spelled wrong and silently ignored costs a night of training, so unknown keys are errors, with the
nearest known key; so are wrong types and values out of range. Each problem is one sentence: which key, what it
must be, what it was.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from potstill import quantities
from potstill.errors import ConfigError, did_you_mean
from potstill.yaml_text import parse_yaml

Bytes = Annotated[int, BeforeValidator(quantities.to_bytes)]
"""A setting that takes 300kB, 64KiB, 2.5MB or a number of bytes."""
Count = Annotated[int, BeforeValidator(quantities.to_count)]
"""A setting that takes 20M, 1.5k or a number."""
Milliseconds = Annotated[float, BeforeValidator(functools.partial(quantities.to_time, unit="ms"))]
"""A setting that takes 2ms, 0.5s or a number of milliseconds."""
Minutes = Annotated[float, BeforeValidator(functools.partial(quantities.to_time, unit="min"))]
"""A setting that takes 30min, 1.5h or a number of minutes."""


class Config(BaseModel):
    """Base of every group of settings: immutable, unknown keys refused, defaults checked too.

    A group that is given in part keeps the defaults of the command for the rest: with `train: TrainConfig =
    TrainConfig(optimizer="sgd")`, `{"train": {"epochs": 2}}` still trains with SGD.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    reusable: ClassVar[tuple[str, ...]] = ()
    """Settings of a stage that can change while its finished parts are kept, such as the budgets of a search."""

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, settings: Any) -> Any:
        """Complete the groups that are given in part from this class's own defaults of them."""
        if not isinstance(settings, Mapping):
            return settings
        defaults = {key: field.default for key, field in cls.model_fields.items() if isinstance(field.default, Config)}
        return {
            key: defaults[key].completed(value) if key in defaults and isinstance(value, Mapping) else value
            for key, value in settings.items()
        }

    def completed(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return `part`, completed by those of these settings that were chosen explicitly."""
        return _merged(self.model_dump(exclude_unset=True), part)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, defaults included: the resolved settings."""
        return self.model_dump(mode="json")


C = TypeVar("C", bound=Config)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one; where both have a key, `above` decides."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = _merged(below[key], above[key])
    return result


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds; raise `ConfigError` where it is none."""
    if not file.is_file():
        raise ConfigError(f"There is no recipe at {file}. Give the path of a YAML file, such as recipe.yaml.")
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        where = str(error).replace("\n", " ")
        raise ConfigError(f"{file} is not valid YAML: {where}. Mend that line and run the command again.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold `key: value` lines, but holds {_described(content)}.")
    return content


def not_a_setting(assignment: str, example: str) -> str:
    """Return the error for an argument that is no KEY=VALUE."""
    return f"'{assignment}' is not a setting. Write it as key=value, for instance {example}."


def override(settings: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return `settings` with "a.b=value" assignments applied, in lists by number from 0; values are read as YAML."""
    result = _copied(settings)
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            problems.append(not_a_setting(assignment, "train.epochs=10"))
            continue
        *parents, last = key.split(".")
        inner = result
        for parent in parents:
            inner = _inside(inner, parent)
        try:
            inner[_place(inner, last)] = parse_yaml(text)
        except yaml.YAMLError:
            problems.append(
                f"'{assignment}': {text!r} is not valid YAML. Quote it for the shell and for YAML: \"{key}='...'\"."
            )
    if problems:
        raise ConfigError(*problems)
    return result


def _inside(settings: Any, key: str) -> Any:
    """Return what lies under a key, an empty mapping if there is nothing that has keys of its own."""
    place: Any = _place(settings, key)
    if not isinstance(settings, list) and not isinstance(settings.get(place), dict | list):
        settings[place] = {}
    return settings[place]


def _place(settings: Any, key: str) -> str | int:
    if not isinstance(settings, list):
        return key
    if not key.isdigit() or int(key) >= len(settings):
        raise ConfigError(
            f"'{key}' is no place in a list of {len(settings)}. Count from 0, such as teachers.0.weights."
        )
    return int(key)


def build(kind: type[C], settings: Mapping[str, Any], *, origin: str = "the recipe") -> C:
    """Return `kind(**settings)`; raise one `ConfigError` that lists every wrong key of `origin`."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        raise ConfigError(*dict.fromkeys(_sentence(kind, detail, origin) for detail in error.errors())) from None


def _sentence(kind: type[Config], detail: Any, origin: str) -> str:
    location = [part for part in detail["loc"] if not str(part).startswith(("function-", "[key]"))]
    key = ".".join(str(part) for part in location)
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            known = _known_keys(kind, location[:-1])
            hint = did_you_mean(str(location[-1]), known) or f" Known keys there: {', '.join(known)}."
            return f"{key}: {origin} has no such key.{hint}"
        case "missing":
            return f"{key}: {origin} must give it, and does not."
        case "value_error":
            return f"{key or origin}: {detail['ctx']['error']}"
    must = detail["msg"].partition(", unable to parse")[0].replace("Input should be", "must be")
    must = re.sub(r"\ba valid (?=(\w))", lambda found: "an " if found[1] in "aeiou" else "a ", must)
    allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"]) if detail["type"] == "literal_error" else []
    return f"{key}: {must}, but was {_described(given)}.{did_you_mean(str(given), allowed)}"


def _known_keys(kind: type[Config], location: list[Any]) -> list[str]:
    """Return the keys of the settings group that `location` leads to."""
    for part in location:
        if isinstance(part, str) and part in kind.model_fields:
            inner = _config_of(kind.model_fields[part].annotation)
            if inner is not None:
                kind = inner
    return list(kind.model_fields)


def _config_of(annotation: Any) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next((found for part in get_args(annotation) if (found := _config_of(part))), None)


def _described(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or f"{value!r}"


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value

"""`Policy`: an ordered tuple of operations, and its spelling in a recipe.

augment: cifar                                       # a named policy
augment: [pad-crop, flip]                            # operations with their usual settings
augment: [{shift: 2}, {rotate: 10}, {erase: {p: 0.25, fill: mean}}]
augment: [photo, trivialaugment]                     # a named policy, then more
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.config import build
from potstill.data.augment.erase import Cutout, Erase
from potstill.data.augment.operation import Operation
from potstill.data.augment.place import Flip, FlipVertical, PadCrop, Shift
from potstill.data.augment.resized_crop import RandomResizedCrop
from potstill.data.augment.searched import AutoAugment, RandAugment, TrivialAugment
from potstill.data.augment.tone import (
    AutoContrast,
    Brightness,
    Contrast,
    Equalize,
    Grayscale,
    Hue,
    Invert,
    Posterize,
    Saturation,
    Sharpness,
    Solarize,
)
from potstill.data.augment.warp import Affine, Rotate
from potstill.errors import ConfigError, did_you_mean
from potstill.progress import note

KINDS = (
    *(Shift, PadCrop, RandomResizedCrop, Flip, FlipVertical, Rotate, Affine),
    *(Brightness, Contrast, Saturation, Hue, Grayscale, Sharpness),
    *(Posterize, Solarize, Equalize, AutoContrast, Invert, Erase, Cutout),
    *(RandAugment, TrivialAugment, AutoAugment),
)
OPERATIONS: dict[str, type[Operation]] = {kind.name: kind for kind in KINDS}
NAMED: dict[str, tuple[str | dict[str, Any], ...]] = {
    "none": (),
    "shift": ("shift",),
    "cifar": ("pad-crop", "flip"),
    "photo": ({"random-resized-crop": 0.35}, "flip"),
    "cifar-no-flip": ("pad-crop",),
    "photo-no-flip": ({"random-resized-crop": 0.35},),
}
AUTO = "auto"
LARGEST_SMALL = 64  # pixels per side up to which an image is not treated as a photo
DIRECTIONS = re.compile(r"left|right|(counter|anti)?clockwise|왼쪽|오른쪽|좌회전|우회전")
NUMBERS = frozenset("zero one two three four five six seven eight nine ten".split())


@dataclass(frozen=True)
class Policy:
    """The operations applied to an image, in order."""

    operations: tuple[Operation, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        """Return the policy as `parse_policy` reads it, every setting spelled out."""
        return [operation.spelled() for operation in self.operations]


def parse_policy(spec: Any, *, auto: str | None = None) -> Policy:
    """Return the policy for a spec in a recipe; raise `ConfigError` with every mistake in it.

    spec: a name, an operation, or a list of them; a `Policy` is returned unchanged. auto: the named policy that
    "auto" means, from `default_policy`; None if the spec cannot contain it.
    """
    if isinstance(spec, Policy):
        return spec
    problems: list[str] = []
    entries = [spec] if isinstance(spec, str | Mapping) else spec
    if not isinstance(entries, Sequence):
        raise ConfigError(f"augment must be the name of a policy or a list of operations, but is {spec!r}. {_known()}")
    operations = tuple(operation for entry in entries for operation in _parsed(entry, auto, problems))
    if problems:
        raise ConfigError(*problems)
    return Policy(operations)


def default_policy(*, height: int, width: int, channels: int, classes: Sequence[str] = ()) -> str:
    """Return the name of a policy that is safe for such images.

    Grey images, and classes that are single characters, may be handwriting: they are only shifted, because flipping
    can change the class of a digit. Small colour images are padded, cropped and flipped; photos get a random-resized
    crop and are flipped. Neither is flipped if the names of the classes are directions or numbers, such as "turn left"
    or "42", which a note says.
    """
    if channels == 1 or (classes and all(len(name) == 1 for name in classes)):
        return "shift"
    policy = "cifar" if min(height, width) <= LARGEST_SMALL else "photo"
    if reason := _changed_by_a_flip(classes):
        note(f"Images are not flipped, because {reason}. --augment {policy} flips them.")
        return f"{policy}-no-flip"
    return policy


def _changed_by_a_flip(classes: Sequence[str]) -> str:
    """Return why the mirrored image may be of another class; "" if no name says so."""
    if classes and all(name.isdecimal() or name.casefold() in NUMBERS for name in classes):
        return "the classes are numbers"
    words = [word for name in classes for word in re.findall(r"[^\W\d_]+", name.casefold())]
    found = next(filter(DIRECTIONS.fullmatch, words), "")
    return f"'{found}' in the name of a class is a direction" if found else ""


def _parsed(entry: Any, auto: str | None, problems: list[str]) -> Iterator[Operation]:
    """Yield the operations of one entry of the list, or append what is wrong with it."""
    for name, settings in _named_settings(entry, auto, problems):
        kind = OPERATIONS[name]
        default = settings is None or settings is True  # `flip:` and `flip: true` in YAML
        fields = settings if isinstance(settings, Mapping) else {} if default else {kind.main: settings}
        try:
            yield build(kind, fields, origin=f"the operation {name}")
        except ConfigError as error:
            problems.extend(f"augment.{name}.{problem}" for problem in error.problems)


def _named_settings(entry: Any, auto: str | None, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(entry, Mapping):
        pairs = _pairs(entry)
    elif isinstance(entry, str):
        if entry == AUTO:
            assert auto, "the reader of a recipe must pass the policy that auto means"
            entry = auto
        pairs = [pair for part in NAMED.get(entry, (entry,)) for pair in _pairs(part)]
    else:
        problems.append(f"augment: an entry must be a name or {{name: settings}}, but one is {entry!r}.")
        return
    for name, settings in pairs:
        if name in OPERATIONS:
            yield name, settings
        else:
            hint = did_you_mean(str(name), [*OPERATIONS, *NAMED, AUTO])
            problems.append(f"augment: there is no operation or policy '{name}'.{hint} {_known()}")


def _pairs(entry: str | Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(entry.items()) if isinstance(entry, Mapping) else [(entry, None)]


def _known() -> str:
    return f"Policies: {', '.join([*NAMED, AUTO])}. Operations: {', '.join(OPERATIONS)}."

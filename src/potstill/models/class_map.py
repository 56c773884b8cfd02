"""Classes that teacher and student name differently: matched by name, by a map in the recipe, or refused aloud.

A teacher whose classes stand in another order teaches nonsense with great confidence, and nothing crashes. So names
decide, never positions; what cannot be matched is an error that says how to write the map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.errors import ConfigError, did_you_mean
from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier, Outputs

UNKNOWN = -1e4
"""The logit of a class that the teacher does not know: a probability of 0, and finite in half precision."""

Explicit = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class ClassMap:
    """columns: for each class of the data, which of the teacher's classes mean it; () where the teacher has none.

    Several are added up: the probability of "dog" is that of "poodle" plus that of "terrier". What is left over is
    renormalised by the softmax.
    """

    columns: tuple[tuple[int, ...], ...]
    theirs: int

    @property
    def is_identity(self) -> bool:
        """Whether teacher and data have the same classes in the same order."""
        return self.columns == tuple((column,) for column in range(self.theirs))

    @property
    def known(self) -> tuple[int, ...] | None:
        """The classes of the data that the teacher knows; None where it knows them all."""
        found = tuple(place for place, columns in enumerate(self.columns) if columns)
        return None if len(found) == len(self.columns) else found

    def __call__(self, logits: Tensor) -> Tensor:
        """Return logits [B, K] of the data's classes for logits [B, K'] of the teacher's."""
        if self.is_identity:
            return logits
        width = max(map(len, self.columns))
        absent, unknown = self.theirs, self.theirs + 1
        chosen = [[*columns, *[absent] * (width - len(columns))] if columns else _only(unknown, absent, width)
                  for columns in self.columns]  # fmt: skip
        padded = nn.functional.pad(nn.functional.pad(logits, (0, 1), value=-torch.inf), (0, 1), value=UNKNOWN)
        picked = padded[:, torch.tensor(chosen, device=logits.device)]
        return picked[..., 0] if width == 1 else picked.logsumexp(2)

    def rows(self, classifier: Tensor) -> Tensor:
        """Return the rows of a linear classifier that say the data's classes, in their order.

        Raises `ConfigError` where a class is said by none or by several, which no row can do.
        """
        if any(len(columns) != 1 for columns in self.columns):
            raise ConfigError(
                "The student would keep the teacher's classifier, and that says some of the data's classes not at all "
                "or as several. Take another loss than simkd, or a teacher of these classes."
            )
        return classifier[[columns[0] for columns in self.columns]]


def _only(first: int, rest: int, width: int) -> list[int]:
    return [first, *[rest] * (width - 1)]


def match_classes(
    theirs: Sequence[str], ours: Sequence[str], explicit: Explicit | None = None, *, who: str
) -> ClassMap:
    """Return the map from the teacher's classes to the data's, by name.

    explicit: {our class: their class, several of them, or None where they have none}; the others are matched by name,
    in which case and underscores do not count. who: "The teacher resnet50". Raises `ConfigError` where both sides have
    classes left over, or fewer than two are shared.
    """
    explicit = dict(explicit or {})
    _check_explicit(explicit, theirs, ours, who)
    by_name = {name: place for place, name in enumerate(theirs)}
    by_plain = {plain(name): place for place, name in enumerate(theirs)}
    by_plain = by_plain if len(by_plain) == len(theirs) else {}
    columns = []
    for name in ours:
        if name in explicit:
            columns.append(tuple(by_name[other] for other in _listed(explicit[name])))
        else:
            place = by_name.get(name, by_plain.get(plain(name)))
            columns.append(() if place is None else (place,))
    found = ClassMap(tuple(columns), len(theirs))
    _check_fit(found, theirs, ours, explicit, who)
    return found


def plain(name: str) -> str:
    """Return a name without what people spell differently: case, underscores and hyphens."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _check_explicit(explicit: Explicit, theirs: Sequence[str], ours: Sequence[str], who: str) -> None:
    problems = [
        f"teacher.class_map: the data has no class '{name}'.{did_you_mean(name, ours)}"
        for name in explicit
        if name not in ours
    ]
    problems += [
        f"teacher.class_map.{name}: {_lower(who)} has no class '{other}'.{did_you_mean(other, theirs)}"
        for name, value in explicit.items()
        for other in _listed(value)
        if other not in theirs
    ]
    if problems:
        raise ConfigError(*problems)


def _check_fit(found: ClassMap, theirs: Sequence[str], ours: Sequence[str], explicit: Explicit, who: str) -> None:
    used = {column for columns in found.columns for column in columns}
    open_ours = [
        name for name, columns in zip(ours, found.columns, strict=True) if not columns and name not in explicit
    ]
    open_theirs = [name for place, name in enumerate(theirs) if place not in used]
    known = sum(bool(columns) for columns in found.columns)
    if known >= 2 and not (open_ours and open_theirs):
        return
    example = f"{open_ours[0] if open_ours else ours[0]}: {open_theirs[0] if open_theirs else theirs[0]}"
    raise ConfigError(
        f"{who} and the data name their classes differently: {known} of the data's {len(ours)} are among its "
        f"{len(theirs)}. The data's {some(open_ours)} {'has' if len(open_ours) == 1 else 'have'} no counterpart, and "
        f"the teacher's {some(open_theirs)} {'is' if len(open_theirs) == 1 else 'are'} left over. Say which is which, "
        f"such as teacher.class_map: {{{example}}} (null where there is none), or rename the class folders."
    )


def _lower(who: str) -> str:
    return who[0].lower() + who[1:]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def described(found: ClassMap, theirs: Sequence[str], ours: Sequence[str], *, who: str) -> str:
    """Return what a user should know of a map that is not the identity; "" where there is nothing."""
    if found.known is not None:
        lacking = [name for place, name in enumerate(ours) if place not in found.known]
        return (
            f"{who} does not know {some(lacking)}: its terms compare only the {len(found.known)} classes it knows, and "
            "the student learns the others from labels alone."
        )
    spare = len(theirs) - len({column for columns in found.columns for column in columns})
    if spare:
        return f"{who} knows {spare} classes that the data lacks; its probabilities are renormalised without them."
    return "" if found.is_identity else f"{who} has the data's classes in another order; they were matched by name."


class MappedClassifier(Classifier):
    """A classifier that speaks of the data's classes; its network, and the features in it, are untouched."""

    def __init__(self, network: nn.Module, card: Card, class_map: ClassMap, *, taps: tuple[Tap, ...] = ()) -> None:
        super().__init__(network, card, taps=taps)
        self.class_map = class_map

    def forward(self, image: Tensor) -> Outputs:
        outputs = super().forward(image)
        return dataclasses.replace(outputs, logits=self.class_map(outputs.logits))

    def replace(self, **changes: Any) -> MappedClassifier:
        """Return a classifier of the same parts but those given."""
        other = super().replace(**changes)
        made = MappedClassifier(other.network, other.card, self.class_map, taps=other.taps).to(self.mean.device)
        made.training = self.training
        return made


class MappedModel:
    """The same for any other model `image -> Outputs`."""

    def __init__(self, model: Callable[[Tensor], Outputs], card: Card, class_map: ClassMap) -> None:
        self._model, self.card, self.class_map = model, card, class_map

    def __call__(self, image: Tensor) -> Outputs:
        outputs = self._model(image)
        return dataclasses.replace(outputs, logits=self.class_map(outputs.logits))


def speaking(model: Any, class_map: ClassMap, ours: Sequence[str]) -> Any:
    """Return a model whose logits are of the data's classes `ours`."""
    if class_map.is_identity:
        return model
    card = model.card.replace(classes=tuple(ours))
    if isinstance(model, Classifier):
        made = MappedClassifier(model.network, card, class_map, taps=model.taps).to(model.mean.device)
        made.training = model.training
        return made
    return MappedModel(model, card, class_map)

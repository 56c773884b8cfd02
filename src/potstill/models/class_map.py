"""Matching of the teacher's classes to those of the data: by name, or by a map in the recipe.

A teacher whose classes are in another order would train the student on wrong targets without any error. So classes are
matched by name, never by position; classes that cannot be matched are an error that shows how to write the map.
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
from potstill.words import plural

UNKNOWN = -1e4
"""The logit of a class that the teacher does not have: a probability of 0, and finite in half precision."""

Explicit = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class ClassMap:
    """columns: for each class of the data, the indices of the matching teacher classes; () if there are none.

    Probabilities of several are summed: "dog" is "poodle" plus "terrier". Unmatched teacher classes are dropped, and
    the softmax renormalises the rest. teacher_classes: the number of classes of the teacher.
    """

    columns: tuple[tuple[int, ...], ...]
    teacher_classes: int

    @property
    def is_identity(self) -> bool:
        """Whether teacher and data have the same classes in the same order."""
        return self.columns == tuple((column,) for column in range(self.teacher_classes))

    @property
    def known(self) -> tuple[int, ...] | None:
        """Indices of the data classes that the teacher has; None if it has all of them."""
        known = tuple(index for index, columns in enumerate(self.columns) if columns)
        return None if len(known) == len(self.columns) else known

    def __call__(self, logits: Tensor) -> Tensor:
        """Return logits [B, K] of the data classes for logits [B, K'] of the teacher classes."""
        if self.is_identity:
            return logits
        width = max(map(len, self.columns))
        absent, unknown = self.teacher_classes, self.teacher_classes + 1
        indices = [(columns or (unknown,)) + (absent,) * (width - max(len(columns), 1)) for columns in self.columns]
        padded = nn.functional.pad(nn.functional.pad(logits, (0, 1), value=-torch.inf), (0, 1), value=UNKNOWN)
        selected = padded[:, torch.tensor(indices, device=logits.device)]
        return selected[..., 0] if width == 1 else selected.logsumexp(2)

    def rows(self, classifier: Tensor) -> Tensor:
        """Return the rows of a linear classifier that belong to the data classes, in their order.

        Raises `ConfigError` if a data class matches no teacher class or several, which a single row cannot represent.
        """
        if any(len(columns) != 1 for columns in self.columns):
            raise ConfigError(
                "The loss simkd keeps the teacher's classifier, but some of the data's classes match no teacher class "
                "or several. Use another loss, or a teacher with these classes."
            )
        return classifier[[columns[0] for columns in self.columns]]


def match_classes(
    teacher_classes: Sequence[str], data_classes: Sequence[str], explicit: Explicit | None = None, *, who: str
) -> ClassMap:
    """Return the map from the teacher's classes to the data's, by name.

    explicit: {data class: teacher class, several of them, or None if there is none}; the others are matched by name,
    ignoring case, underscores and hyphens. who: "The teacher resnet50", for messages. Raises `ConfigError` if both
    sides have unmatched classes, or fewer than two match.
    """
    explicit = dict(explicit or {})
    _check_explicit(explicit, teacher_classes, data_classes, who)
    by_name = {name: index for index, name in enumerate(teacher_classes)}
    by_plain = {plain(name): index for index, name in enumerate(teacher_classes)}
    by_plain = by_plain if len(by_plain) == len(teacher_classes) else {}
    columns: list[tuple[int, ...]] = []
    for name in data_classes:
        if name in explicit:
            columns.append(tuple(by_name[other] for other in _listed(explicit[name])))
        else:
            index = by_name.get(name, by_plain.get(plain(name)))
            columns.append(() if index is None else (index,))
    class_map = ClassMap(tuple(columns), len(teacher_classes))
    _check_fit(class_map, teacher_classes, data_classes, explicit, who)
    return class_map


def plain(name: str) -> str:
    """Return a name in lower case, with spaces for underscores and hyphens."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _check_explicit(explicit: Explicit, teacher_classes: Sequence[str], data_classes: Sequence[str], who: str) -> None:
    problems = [
        f"teacher.class_map: the data has no class '{name}'.{did_you_mean(name, data_classes)}"
        for name in explicit
        if name not in data_classes
    ]
    problems += [
        f"teacher.class_map.{name}: {_lower(who)} has no class '{other}'.{did_you_mean(other, teacher_classes)}"
        for name, value in explicit.items()
        for other in _listed(value)
        if other not in teacher_classes
    ]
    if problems:
        raise ConfigError(*problems)


def _check_fit(
    class_map: ClassMap, teacher_classes: Sequence[str], data_classes: Sequence[str], explicit: Explicit, who: str
) -> None:
    used = {column for columns in class_map.columns for column in columns}
    pairs = zip(data_classes, class_map.columns, strict=True)
    unmatched = [name for name, columns in pairs if not columns and name not in explicit]
    unused = [name for index, name in enumerate(teacher_classes) if index not in used]
    known = sum(bool(columns) for columns in class_map.columns)
    if known >= 2 and not (unmatched and unused):
        return
    example = f"{(unmatched or data_classes)[0]}: {(unused or teacher_classes)[0]}"
    raise ConfigError(
        f"{who} and the data name their classes differently: {known} of {len(data_classes)} data classes match one of "
        f"its {len(teacher_classes)} classes. Unmatched classes of the data: {some(unmatched) or 'none'}; of the "
        f"teacher: {some(unused) or 'none'}. Write which class is which, such as teacher.class_map: {{{example}}} "
        "(null if there is none), or rename the class folders."
    )


def _lower(who: str) -> str:
    return who[0].lower() + who[1:]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def described(class_map: ClassMap, teacher_classes: Sequence[str], data_classes: Sequence[str], *, who: str) -> str:
    """Return a note about a map that is not the identity; "" if there is nothing to note."""
    if class_map.known is not None:
        missing = [name for index, name in enumerate(data_classes) if index not in class_map.known]
        return (
            f"{who} does not have the classes {some(missing)}: distillation terms use only the "
            f"{plural(len(class_map.known), 'class')} it has, and the student learns the others from labels only."
        )
    spare = len(teacher_classes) - len({column for columns in class_map.columns for column in columns})
    if spare:
        return (
            f"{who} has {plural(spare, 'class')} that the data does not have; its probabilities are renormalised "
            "without them."
        )
    return "" if class_map.is_identity else f"{who} has the data's classes in another order; they are matched by name."


class MappedClassifier(Classifier):
    """A classifier whose logits are mapped to the data's classes; its network and features are unchanged."""

    def __init__(self, network: nn.Module, card: Card, class_map: ClassMap, *, taps: tuple[Tap, ...] = ()) -> None:
        super().__init__(network, card, taps=taps)
        self.class_map = class_map

    def forward(self, image: Tensor) -> Outputs:
        outputs = super().forward(image)
        return dataclasses.replace(outputs, logits=self.class_map(outputs.logits))

    def replace(self, **changes: Any) -> MappedClassifier:
        """Return a copy with some parts replaced."""
        other = super().replace(**changes)
        mapped = MappedClassifier(other.network, other.card, self.class_map, taps=other.taps).to(self.mean.device)
        mapped.training = self.training
        return mapped


class MappedModel:
    """Any other model `image -> Outputs`, with its logits mapped to the data's classes."""

    def __init__(self, model: Callable[[Tensor], Outputs], card: Card, class_map: ClassMap) -> None:
        self._model, self.card, self.class_map = model, card, class_map

    def __call__(self, image: Tensor) -> Outputs:
        outputs = self._model(image)
        return dataclasses.replace(outputs, logits=self.class_map(outputs.logits))


def speaking(model: Any, class_map: ClassMap, data_classes: Sequence[str]) -> Any:
    """Return a model whose logits are mapped to the data's classes."""
    if class_map.is_identity:
        return model
    card = model.card.replace(classes=tuple(data_classes))
    if isinstance(model, Classifier):
        mapped = MappedClassifier(model.network, card, class_map, taps=model.taps).to(model.mean.device)
        mapped.training = model.training
        return mapped
    return MappedModel(model, card, class_map)

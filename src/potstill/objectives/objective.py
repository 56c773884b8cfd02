"""`Objective`: named, weighted terms of one batch. Control, distillation and everything later are one of these.

A term is a loss function and what it is applied to. The loss says by the names of its parameters what it needs
(`student`, `teacher`, `label`), so a loss of the user's own needs no registration and no class. What a term compares
inside the networks, and the layers in between, stand in its `Connection` (objectives/feature_terms.py makes them).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from potstill.config import Config
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.errors import ConfigError
from potstill.losses import SPECS, spec_of
from potstill.losses.spec import Spec
from potstill.models.outputs import Outputs
from potstill.teachers.base import Teacher

GIVEN = frozenset({"student", "teacher", "label", "index", "step"})


class Term(Config):
    """One term: `weight` times the loss called `loss` (docs/losses.md, or FILE.py:FUNCTION) with `options`.

    on: where in the student a loss on features looks: a tap ("stage:-1", "pooled", "tokens", a module's path), or
    several for a loss on layers; None is the loss's own default. teacher_on: where in the teacher; None is `on`.
    project: whether layers in between bring the student's feature to the teacher's shape; None is as the loss needs.
    """

    loss: str
    weight: float = Field(default=1.0, ge=0)
    on: str | tuple[str, ...] | None = None
    teacher_on: str | tuple[str, ...] | None = None
    project: bool | None = None
    options: dict[str, Any] = {}
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, given: Any) -> Any:
        """Take the key `on`, which YAML 1.1 and so PyYAML reads as true, for the word that was written."""
        if not isinstance(given, dict):
            return given
        return {"on" if key is True else key: value for key, value in given.items()}

    @property
    def title(self) -> str:
        """The name it is logged under."""
        return self.name or self.loss.rpartition(":")[2]

    @property
    def function(self) -> Callable[..., Tensor]:
        """The loss with its options filled in; raises `ConfigError` where it is unknown or lacks an option."""
        assert not self.spec.learned, "a loss with parameters is built by potstill.objectives.feature_terms"
        self.check_options()
        return functools.partial(self.spec.function, **self.options)

    @property
    def spec(self) -> Spec:
        """What the loss declares of itself; raises `ConfigError` where it is unknown."""
        return spec_of(self.loss)

    def check_options(self) -> None:
        """Raise `ConfigError` where the loss is unknown or does not take an option."""
        settings = inspect.signature(self.spec.function)
        known = [p.name for p in settings.parameters.values() if p.kind == p.KEYWORD_ONLY]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ConfigError(
                f"The loss {self.loss} has no option {', '.join(unknown)}. It takes: {', '.join(known) or 'none'}."
            )

    @property
    def needs(self) -> frozenset[str]:
        """Which of student, teacher, label, index and step the loss takes."""
        return frozenset(inspect.signature(self.spec.call).parameters) & GIVEN

    @property
    def sees_features(self) -> bool:
        """Whether it compares features and not logits."""
        return self.spec.on != "logits" or self.on is not None


def lecture_terms(*, alpha: float, temperature: float, loss: str = "kd") -> tuple[Term, ...]:
    """Return alpha * CE(student, label) + (1 - alpha) * loss(student, teacher) (Hinton et al., arXiv:1503.02531).

    alpha: 0..1, the weight of the labels. temperature: above 0; handed to the loss where it has one.
    """
    takes_temperature = "temperature" in inspect.signature(spec_of(loss).function).parameters
    options = {"temperature": temperature} if takes_temperature else {}
    return (
        Term(loss="cross_entropy", weight=alpha),
        Term(loss=loss, weight=1 - alpha, options=options),
    )


def control_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Return the terms without the teacher's, with the weights of the labels' brought to a sum of 1.

    Without that, a control of `alpha` = 0.1 would also train at a tenth of the learning rate, which is no control.
    """
    own = [term for term in terms if "teacher" not in term.needs and term.weight > 0]
    total = sum(term.weight for term in own)
    if not own:
        return (Term(loss="cross_entropy"),)
    return tuple(term.model_copy(update={"weight": term.weight / total}) for term in own)


@dataclass(frozen=True)
class Connection:
    """What a term compares: by which function, and at which taps of the student and of the teacher.

    No taps: the logits. With taps the function receives lists of features; where it is a module, its parameters are
    trained with the student and left behind at export.
    """

    function: Callable[..., Tensor]
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


class Objective:
    """Turns outputs and targets into {term: scalar, ..., "loss": their weighted sum}.

    Rows without a label take part in the teacher's terms only; a term with labels is averaged over the labelled rows.
    aux_weight: the weight of each side head's terms relative to the main head's (0.3 in arXiv:1409.4842).
    connections: by title, for the terms that compare features or have parameters. known: the classes that the teacher
    knows; its terms on logits compare these alone, renormalised.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        classes: int,
        teacher: Teacher | None,
        aux_weight: float = 0.3,
        connections: Mapping[str, Connection] = MappingProxyType({}),
        known: Sequence[int] | None = None,
    ) -> None:
        check(terms, classes=classes if known is None else len(known), teacher=teacher is not None)
        self.teacher = teacher
        used = [term for term in terms if term.weight > 0]
        self._connections = {t.title: connections.get(t.title) or Connection(t.function) for t in used}
        self._terms = [(term.title, term.weight, term.needs) for term in used]
        self._aux_weight = aux_weight
        self._known = None if known is None else Known(known, classes)
        self.learned = nn.ModuleDict(
            {
                title.replace(".", "_"): connection.function
                for title, connection in self._connections.items()
                if isinstance(connection.function, nn.Module)
            }
        )

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Take the moving average of the student's state, which goes on changing in place, where there is one."""

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms of a batch, the teacher evaluated first; step counts from 0."""
        return self.judge(outputs, self.teacher(batch) if self.teacher else None, batch, step)

    def judge(self, outputs: Outputs, target: Outputs | None, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms of a batch, for the outputs of the teacher."""
        result = {title: self._term(title, needs, outputs, target, batch, step) for title, _, needs in self._terms}
        result["loss"] = torch.as_tensor(sum(weight * result[title] for title, weight, _ in self._terms))
        return result

    def _term(
        self, title: str, needs: frozenset[str], outputs: Outputs, target: Outputs | None, batch: Batch, step: int
    ) -> Tensor:
        connection = self._connections[title]
        facts = {"index": batch.index, "step": step}
        given: dict[str, Any] = {name: facts[name] for name in needs & set(facts)}
        if connection.student:
            if "teacher" in needs and target is not None:
                given["teacher"] = _features(target, connection.teacher)
            return _mean(connection.function, _features(outputs, connection.student), given, batch, "label" in needs)
        heads = (outputs.logits, *outputs.aux)
        if "teacher" in needs and target is not None:
            given["teacher"] = target.logits
            if self._known:
                given["teacher"], heads = self._known.of(target.logits), tuple(map(self._known.of, heads))
                batch = self._known.labels(batch)
        values = [_mean(connection.function, logits, given, batch, "label" in needs) for logits in heads]
        return values[0] + self._aux_weight * sum(values[1:])


class Known:
    """The classes that a teacher knows, of those that the student learns."""

    def __init__(self, known: Sequence[int], classes: int) -> None:
        self._columns = torch.tensor(known)
        self._place = torch.full((classes,), UNLABELLED).index_copy(0, self._columns, torch.arange(len(known)))

    def of(self, logits: Tensor) -> Tensor:
        """Return the logits [B, K'] of the classes that are known."""
        return logits[:, self._columns.to(logits.device)]

    def labels(self, batch: Batch) -> Batch:
        """Return the batch with labels counted among the known classes; a label of another class is none."""
        place = self._place.to(batch.label.device)
        label = torch.where(batch.label >= 0, place[batch.label.clamp_min(0)], UNLABELLED)
        return Batch(batch.image, label, batch.index, batch.view, batch.mix)


def _features(outputs: Outputs, taps: tuple[str, ...]) -> list[Tensor]:
    """Return the features in float32: what comes between them and the loss is no part of the student's autocast."""
    return [outputs.features[tap].float() for tap in taps]


def _mean(function: Callable[..., Tensor], student: Any, given: dict[str, Any], batch: Batch, labelled: bool) -> Tensor:
    """Return the mean over the rows that count: all of them, or the labelled ones."""
    if not labelled:
        return function(student=student, **given).mean()
    own = function(student=student, label=batch.label, **given)
    if batch.mix is None:
        return _labelled_mean(own, batch.label)
    partner, weight = batch.label[batch.mix.partner], batch.mix.weight
    return _labelled_mean(own, batch.label, weight) + _labelled_mean(
        function(student=student, label=partner, **given), partner, 1 - weight
    )


def _labelled_mean(values: Tensor, label: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    labelled = (label != UNLABELLED).to(values.dtype)
    return (values * labelled * weight).sum() / labelled.sum().clamp_min(1)


def check(terms: Sequence[Term], *, classes: int, teacher: bool) -> None:
    """Raise one `ConfigError` with all that is wrong with terms; teacher: whether there is one."""
    problems = []
    for term in terms:
        problems += _problems(term, classes, teacher)
    titles = [term.title for term in terms]
    for title in sorted({t for t in titles if titles.count(t) > 1}):
        problems.append(f"Two terms are called {title}. Give one of them another `name`.")
    if not any(term.weight > 0 for term in terms):
        problems.append("All terms have weight 0: there is nothing to learn from. Give one a positive weight.")
    if problems:
        raise ConfigError(*problems)


def _problems(term: Term, classes: int, teacher: bool) -> list[str]:
    try:
        term.check_options()
    except ConfigError as error:
        return error.problems
    problems = []
    if "teacher" in term.needs and term.weight > 0 and not teacher:
        problems.append(f"The loss {term.loss} needs a teacher, and there is none.")
    if term.spec.two_classes and classes < 3:
        why = term.spec.two_classes
        problems.append(f"The loss {term.loss} does not suit {classes} classes: {why}. Use kd, which does.")
    if term.loss in SPECS and term.spec.on == "logits" and (term.on is not None or term.teacher_on is not None):
        problems.append(f"The loss {term.loss} compares logits, so it has no `on`. Leave it out, or take feature_mse.")
    return problems

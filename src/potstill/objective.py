"""`Objective`: named, weighted terms of one batch. Control, distillation and everything later are one of these.

A term is a loss function and what it is applied to. The loss says by the names of its parameters what it needs
(`student`, `teacher`, `label`), so a loss of the user's own needs no registration and no class.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from potstill.config import Config
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.errors import ConfigError
from potstill.losses import NEEDS_THREE_CLASSES, resolve
from potstill.models.outputs import Outputs
from potstill.teachers import Teacher


class Term(Config):
    """One term: `weight` times the loss called `loss` (docs/losses.md, or FILE.py:FUNCTION) with `options`."""

    loss: str
    weight: float = Field(default=1.0, ge=0)
    options: dict[str, Any] = {}
    name: str = ""

    @property
    def title(self) -> str:
        """The name it is logged under."""
        return self.name or self.loss.rpartition(":")[2]

    @property
    def function(self) -> Callable[..., Tensor]:
        """The loss with its options filled in; raises `ConfigError` where it is unknown or lacks an option."""
        function = resolve(self.loss)
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ConfigError(
                f"The loss {self.loss} has no option {', '.join(unknown)}. It takes: {', '.join(known) or 'none'}."
            )
        return functools.partial(function, **self.options)

    @property
    def needs(self) -> frozenset[str]:
        """Which of student, teacher and label the loss takes."""
        return frozenset(inspect.signature(resolve(self.loss)).parameters) & {"student", "teacher", "label"}


def lecture_terms(*, alpha: float, temperature: float, loss: str = "kd") -> tuple[Term, ...]:
    """Return alpha * CE(student, label) + (1 - alpha) * loss(student, teacher) (Hinton et al., arXiv:1503.02531).

    alpha: 0..1, the weight of the labels. temperature: above 0; handed to the loss where it has one.
    """
    takes_temperature = "temperature" in inspect.signature(resolve(loss)).parameters
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


class Objective:
    """Turns outputs and targets into {term: scalar, ..., "loss": their weighted sum}.

    Rows without a label take part in the teacher's terms only; a term with labels is averaged over the labelled rows.
    aux_weight: the weight of each side head's terms relative to the main head's (0.3 in arXiv:1409.4842).
    """

    def __init__(
        self, terms: Sequence[Term], *, classes: int, teacher: Teacher | None, aux_weight: float = 0.3
    ) -> None:
        _check(terms, classes, teacher)
        self.teacher = teacher
        self._terms = [(term.title, term.weight, term.function, term.needs) for term in terms if term.weight > 0]
        self._aux_weight = aux_weight

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        target = self.teacher(batch) if self.teacher else None
        result = {title: self._term(outputs, target, batch, fn, needs) for title, _, fn, needs in self._terms}
        result["loss"] = sum(weight * result[title] for title, weight, _, _ in self._terms)
        return result

    def _term(
        self,
        outputs: Outputs,
        target: Outputs | None,
        batch: Batch,
        function: Callable[..., Tensor],
        needs: frozenset[str],
    ) -> Tensor:
        given: dict[str, Tensor] = {"teacher": target.logits} if "teacher" in needs and target else {}
        value = _mean(function, outputs.logits, given, batch, "label" in needs)
        for logits in outputs.aux:
            value = value + self._aux_weight * _mean(function, logits, given, batch, "label" in needs)
        return value


def _mean(
    function: Callable[..., Tensor], student: Tensor, given: dict[str, Tensor], batch: Batch, labelled: bool
) -> Tensor:
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


def _check(terms: Sequence[Term], classes: int, teacher: Teacher | None) -> None:
    problems = []
    for term in terms:
        if "teacher" in term.needs and term.weight > 0 and teacher is None:
            problems.append(f"The loss {term.loss} needs a teacher, and there is none.")
        if term.loss in NEEDS_THREE_CLASSES and classes < 3:
            why = NEEDS_THREE_CLASSES[term.loss]
            problems.append(f"The loss {term.loss} does not suit {classes} classes: {why}. Use kd, which does.")
    titles = [term.title for term in terms]
    for title in sorted({t for t in titles if titles.count(t) > 1}):
        problems.append(f"Two terms are called {title}. Give one of them another `name`.")
    if not any(term.weight > 0 for term in terms):
        problems.append("All terms have weight 0: there is nothing to learn from. Give one a positive weight.")
    if problems:
        raise ConfigError(*problems)


def finite(losses: dict[str, Tensor]) -> bool:
    """Whether the loss is a number."""
    return bool(torch.isfinite(losses["loss"]))

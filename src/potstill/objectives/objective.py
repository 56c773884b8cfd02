"""`Objective`: the named, weighted loss terms of a batch, for controls and for all kinds of distillation.

A term is a loss function and its inputs. The names of a loss's parameters define what it needs (`student`, `teacher`,
`label`), so a user-defined loss needs no registration and no class. The features that a term compares, and the layers
in between, are in its `Connection` (built by objectives/feature_terms.py).
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

from potstill import distributed
from potstill.config import Config
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.errors import ConfigError
from potstill.losses import SPECS, spec_of
from potstill.losses.spec import Spec
from potstill.models.outputs import Outputs
from potstill.teachers.base import Teacher

INPUTS = frozenset({"student", "teacher", "label", "index", "step"})


class Term(Config):
    """One term: `weight` times the loss called `loss` (docs/losses.md, or FILE.py:FUNCTION) with `options`.

    on: tap of the student for a loss on features ("stage:-1", "pooled", "tokens", a module's path), or several for a
    loss on layers; None is the default of the loss. teacher_on: tap of the teacher; None is `on`. project: whether
    projectors convert the student's features to the teacher's shape; None is the default of the loss.
    """

    loss: str = Field(description="name of the loss, or FILE.py:FUNCTION")
    weight: float = Field(default=1.0, ge=0, description="weight of the term")
    on: str | tuple[str, ...] | None = Field(default=None, description="tap or taps of the student")
    teacher_on: str | tuple[str, ...] | None = Field(default=None, description="taps of the teacher; null: as `on`")
    project: bool | None = Field(default=None, description="whether to use projectors; null: as the loss needs")
    options: dict[str, Any] = Field(default={}, description="options of the loss")
    name: str = Field(default="", description="name in metrics; empty: that of the loss")

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_string(cls, settings: Any) -> Any:
        """Restore the key `on`, which YAML 1.1, and so PyYAML, reads as true."""
        if not isinstance(settings, dict):
            return settings
        return {"on" if key is True else key: value for key, value in settings.items()}

    @property
    def title(self) -> str:
        """Its name in metrics."""
        return self.name or self.loss.rpartition(":")[2]

    @property
    def function(self) -> Callable[..., Tensor]:
        """The loss with its options; raises `ConfigError` if the loss or an option is unknown."""
        assert not self.spec.learned, "a loss with parameters is built by potstill.objectives.feature_terms"
        self.check_options()
        return functools.partial(self.spec.function, **self.options)

    @property
    def spec(self) -> Spec:
        """The specification of the loss; raises `ConfigError` if it is unknown."""
        return spec_of(self.loss)

    def check_options(self) -> None:
        """Raise `ConfigError` if the loss or an option is unknown."""
        settings = inspect.signature(self.spec.function)
        known = [p.name for p in settings.parameters.values() if p.kind == p.KEYWORD_ONLY]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ConfigError(
                f"The loss {self.loss} has no option {', '.join(unknown)}. Its options: {', '.join(known) or 'none'}."
            )

    @property
    def needs(self) -> frozenset[str]:
        """The inputs of the loss: some of student, teacher, label, index and step."""
        return frozenset(inspect.signature(self.spec.call).parameters) & INPUTS

    @property
    def sees_features(self) -> bool:
        """Whether it compares features instead of logits."""
        return self.spec.on != "logits" or self.on is not None


def lecture_terms(*, alpha: float, temperature: float, loss: str = "kd") -> tuple[Term, ...]:
    """Return alpha * CE(student, label) + (1 - alpha) * loss(student, teacher) (Hinton et al., arXiv:1503.02531).

    alpha: 0..1, the weight of the labels. temperature: above 0; an option of the loss, if it has one.
    """
    takes_temperature = "temperature" in inspect.signature(spec_of(loss).function).parameters
    options = {"temperature": temperature} if takes_temperature else {}
    return (
        Term(loss="cross_entropy", weight=alpha),
        Term(loss=loss, weight=1 - alpha, options=options),
    )


def control_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Return the terms that need no teacher, with weights normalised to sum 1.

    Otherwise a control of `alpha` = 0.1 would also be trained with a tenth of the learning rate.
    """
    own = [term for term in terms if "teacher" not in term.needs and term.weight > 0]
    total = sum(term.weight for term in own)
    if not own:
        return (Term(loss="cross_entropy"),)
    return tuple(term.model_copy(update={"weight": term.weight / total}) for term in own)


@dataclass(frozen=True)
class Connection:
    """The function of a term, and its taps of student and teacher.

    Without taps, the function receives logits; with taps, lists of features. If it is a module, its parameters are
    trained with the student, but not exported.
    """

    function: Callable[..., Tensor]
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


class Objective:
    """Computes {term: scalar, ..., "loss": their weighted sum} from outputs and targets.

    Unlabelled rows are used in the teacher's terms only; a term with labels is averaged over the labelled rows.
    aux_weight: weight of the terms of each auxiliary head relative to the main head (0.3 in arXiv:1409.4842).
    connections: by title, for terms with features or parameters. known: the classes of the teacher; its terms on logits
    compare only these, renormalised.
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
        """Set the moving average of the student's state, which is updated in place; called if there is one."""

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms of a batch, the teacher evaluated first; step counts from 0."""
        return self.terms(outputs, self.teacher(batch) if self.teacher else None, batch, step)

    def terms(self, outputs: Outputs, target: Outputs | None, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms of a batch for given outputs of the teacher."""
        result = {title: self._term(title, needs, outputs, target, batch, step) for title, _, needs in self._terms}
        result["loss"] = torch.as_tensor(sum(weight * result[title] for title, weight, _ in self._terms))
        return result

    def _term(
        self, title: str, needs: frozenset[str], outputs: Outputs, target: Outputs | None, batch: Batch, step: int
    ) -> Tensor:
        connection = self._connections[title]
        facts = {"index": batch.index, "step": step}
        inputs: dict[str, Any] = {name: facts[name] for name in needs & set(facts)}
        if connection.student:
            if "teacher" in needs and target is not None:
                inputs["teacher"] = _features(target, connection.teacher)
            return _mean(connection.function, _features(outputs, connection.student), inputs, batch, "label" in needs)
        heads = (outputs.logits, *outputs.aux)
        if "teacher" in needs and target is not None:
            inputs["teacher"] = target.logits
            if self._known:
                inputs["teacher"], heads = self._known.of(target.logits), tuple(map(self._known.of, heads))
                batch = self._known.labels(batch)
        values = [_mean(connection.function, logits, inputs, batch, "label" in needs) for logits in heads]
        return values[0] + self._aux_weight * sum(values[1:])


class Known:
    """The classes of a teacher that has only some of the student's."""

    def __init__(self, known: Sequence[int], classes: int) -> None:
        self._columns = torch.tensor(known)
        self._place = torch.full((classes,), UNLABELLED).index_copy(0, self._columns, torch.arange(len(known)))

    def of(self, logits: Tensor) -> Tensor:
        """Return the logits [B, K'] of these classes."""
        return logits[:, self._columns.to(logits.device)]

    def labels(self, batch: Batch) -> Batch:
        """Return the batch with labels as indices of these classes; rows of other classes are unlabelled."""
        place = self._place.to(batch.label.device)
        label = torch.where(batch.label >= 0, place[batch.label.clamp_min(0)], UNLABELLED)
        return Batch(batch.image, label, batch.index, batch.view, batch.mix)


def _features(outputs: Outputs, taps: tuple[str, ...]) -> list[Tensor]:
    """Return the features in float32: projectors and losses are outside of the student's autocast."""
    return [outputs.features[tap].float() for tap in taps]


def _mean(
    function: Callable[..., Tensor], student: Any, inputs: dict[str, Any], batch: Batch, labelled: bool
) -> Tensor:
    """Return the mean over all rows, or over the labelled ones."""
    if not labelled:
        return function(student=student, **inputs).mean()
    own = function(student=student, label=batch.label, **inputs)
    if batch.mix is None:
        return _labelled_mean(own, batch.label)
    partner, weight = batch.label[batch.mix.partner], batch.mix.weight
    return _labelled_mean(own, batch.label, weight) + _labelled_mean(
        function(student=student, label=partner, **inputs), partner, 1 - weight
    )


def _labelled_mean(values: Tensor, label: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    labelled = (label != UNLABELLED).to(values.dtype)
    return (values * labelled * weight).sum() / labelled.sum().clamp_min(1)


def check(terms: Sequence[Term], *, classes: int, teacher: bool) -> None:
    """Raise one `ConfigError` with all problems of the terms. teacher: whether there is one."""
    problems = []
    for term in terms:
        problems += _problems(term, classes, teacher)
    titles = [term.title for term in terms]
    for title in sorted({t for t in titles if titles.count(t) > 1}):
        problems.append(f"Two terms have the name {title}. Give one of them another `name`.")
    if not any(term.weight > 0 for term in terms):
        problems.append("All terms have weight 0. Give at least one a positive weight.")
    if problems:
        raise ConfigError(*problems)


def check_parts(terms: Sequence[Term], parts: int) -> None:
    """Raise `ConfigError` for losses of whole batches, if a batch is computed in several parts (`train.accumulate`)."""
    problems = [
        f"The loss {term.loss} compares the images of a whole batch with each other, and train.accumulate={parts} "
        "computes a batch in parts. Leave train.accumulate out (a smaller train.batch_size saves memory), or use kd."
        for term in terms
        if term.spec.whole_batch and term.weight > 0 and parts > 1
    ]
    if problems:
        raise ConfigError(*problems)


def _problems(term: Term, classes: int, teacher: bool) -> list[str]:
    try:
        term.check_options()
    except ConfigError as error:
        return error.problems
    problems = []
    if "teacher" in term.needs and term.weight > 0 and not teacher:
        problems.append(f"The loss {term.loss} needs a teacher, but there is none. Give one, or leave the loss out.")
    if term.spec.two_classes and classes < 3:
        why = term.spec.two_classes
        problems.append(f"The loss {term.loss} does not support {classes} classes: {why}. Use kd instead.")
    if term.spec.whole_batch and term.weight > 0 and distributed.world() > 1:
        problems.append(
            f"The loss {term.loss} compares the images of a whole batch with each other, and each of the "
            f"{distributed.world()} processes has only a part of it. Run it without torchrun, or use kd."
        )
    if term.loss in SPECS and term.spec.on == "logits" and (term.on is not None or term.teacher_on is not None):
        problems.append(f"The loss {term.loss} compares logits, so it has no `on`. Leave it out, or use feature_mse.")
    return problems

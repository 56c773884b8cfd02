"""Feature terms, wired: which taps of student and teacher a term compares, and the layers in between.

Everything is read off two models by one watched forward pass each: shapes give the projectors, the teacher's last
layer the classifier that SRRL and SimKD borrow, its batch norm the margins of OFD. Nobody edits a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from potstill import distributed
from potstill.errors import ConfigError, ModelError
from potstill.losses.features import feature_mse
from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import Trace, trace
from potstill.models.inspect.heads_and_norms import batch_norm_before, before_relu, last_linear
from potstill.models.inspect.taps import resolve, stages
from potstill.models.outputs import Classifier
from potstill.models.projectors import Shape, channels, projector
from potstill.models.shared_head import PROJECTED, reuse_head
from potstill.models.zoo import seeded
from potstill.objectives.feature_comparison import Comparison, Layout
from potstill.objectives.objective import Connection, Term

LAYOUTS: dict[str, Layout] = {"pooled": "vector", "maps": "map", "layers": "map"}  # of what a loss compares


@dataclass(frozen=True)
class Wiring:
    """student: what is trained; it says the features its terms need, and under SimKD ends in the teacher's head.

    taps: of the teacher. connections: by the title of a term, for those with features or parameters.
    """

    student: Classifier
    taps: tuple[Tap, ...] = ()
    connections: dict[str, Connection] = field(default_factory=dict)


def wire(
    terms: Sequence[Term],
    student: Classifier,
    teacher: Classifier | None,
    *,
    rows: Tensor,
    steps: int,
    seed: int,
    mixed: bool = False,
) -> Wiring:
    """Return what the terms need beside logits.

    teacher: None where it cannot be looked into. rows: int64 [N], the training images; steps: of the whole training;
    seed: of the new layers; mixed: whether images are mixed. Raises `ConfigError` for taps that are not there and for
    features that cannot be compared.
    """
    used = [term for term in terms if term.weight > 0]
    seeing = [term for term in used if term.sees_features]
    plain = [term for term in used if term.spec.learned and not term.sees_features]
    nowhere = _Site(steps, rows)
    connections = {term.title: Connection(term.spec.build(nowhere, **term.options)) for term in plain}
    if not seeing:
        return Wiring(student, connections=connections)
    _check(seeing, teacher, mixed)
    with seeded(seed):
        student = _with_teachers_head(seeing, student, teacher)
        pair = _Pair(student, teacher, rows, steps)
        connections |= {term.title: pair.connect(term) for term in seeing}
    student = student.replace(taps=tuple(pair.student.taps.values()))
    return Wiring(student, tuple(pair.teacher.taps.values()) if teacher else (), connections)


def _check(seeing: Sequence[Term], teacher: Classifier | None, mixed: bool) -> None:
    problems = []
    for term in seeing:
        if teacher is None and "teacher" in term.needs:
            problems.append(
                f"The loss {term.title} compares features, and this teacher only gives answers: nobody can look into "
                "it. Take a loss on logits, such as kd, or give one network with its weights as the teacher."
            )
        if term.spec.remembers and mixed:
            problems.append(
                f"The loss {term.loss} tells every image from all others, so images cannot be mixed: leave out mix."
            )
        if term.spec.remembers and distributed.world() > 1:
            problems.append(
                f"The loss {term.loss} keeps a memory of every image, in one process: run it without torchrun."
            )
    if problems:
        raise ConfigError(*problems)


def _with_teachers_head(seeing: Sequence[Term], student: Classifier, teacher: Classifier | None) -> Classifier:
    """Return the student, ending in a projector and the teacher's classifier where a loss is that it shares it."""
    for term in seeing:
        if term.spec.shares_head and teacher is not None:
            names = _names(term.on) or (term.spec.tap,)
            (on,), (there,) = _taps(student, names, term), _taps(teacher, _names(term.teacher_on) or names, term)
            return reuse_head(student, on, teacher, there, **term.options)
    return student


class _Side:
    """One of the two networks: its trace, and the taps asked for so far."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.trace: Trace = trace(classifier)
        self.count = len(stages(self.trace))
        self.taps: dict[str, Tap] = {}

    def tap(self, names: Sequence[str], term: Term) -> list[Tap]:
        """Return the taps, which are collected from now on."""
        found = _taps(self.classifier, names, term)
        if term.spec.before_relu:
            found = [before_relu(self.trace, tap) for tap in found]
        self.taps |= {tap.name: tap for tap in found}
        return found


@dataclass(frozen=True)
class _Site:
    """Where a loss with parameters is built: `Site`. For a loss on logits there is no term and no teacher."""

    steps: int
    rows: Tensor
    term: Term | None = None
    teacher: _Side | None = None
    tap: Tap | None = None
    shapes: tuple[tuple[Shape, Shape], ...] = ()

    @property
    def student_channels(self) -> list[int]:
        return [channels(shape) for shape, _ in self.shapes]

    @property
    def teacher_channels(self) -> list[int]:
        return [channels(shape) for _, shape in self.shapes]

    @property
    def rectified(self) -> bool:
        teacher, tap, _ = self._there()
        return _never_negative(teacher.classifier, tap)

    def classifier(self) -> tuple[Tensor, Tensor]:
        teacher, _, term = self._there()
        weight, bias = last_linear(teacher.trace)
        width = self.teacher_channels[0]
        if weight.shape[1] != width:
            raise ConfigError(
                f"The loss {term.title} compares what the teacher's last layer sees, {weight.shape[1]} values; its tap "
                f"'{term.teacher_on or term.on}' gives {width}. Leave out `on` and `teacher_on`, or take 'pooled'."
            )
        return weight.cpu(), bias.cpu()

    def batch_norm(self) -> nn.BatchNorm2d:
        teacher, tap, term = self._there()
        model, norm = teacher.classifier.card.model, batch_norm_before(teacher.trace, tap)
        if norm is None or self.rectified:
            raise ConfigError(
                f"The loss {term.title} compares maps behind a batch norm and before its ReLU, and '{tap.name}' of "
                f"{model} is none. Name a BatchNorm2d layer with `teacher_on`; `potstill layers {model}` lists them."
            )
        return norm

    def _there(self) -> tuple[_Side, Tap, Term]:
        assert self.teacher and self.tap and self.term, "a loss on logits has no place in the teacher"
        return self.teacher, self.tap, self.term


class _Pair:
    """Student and teacher, connected term by term."""

    def __init__(self, student: Classifier, teacher: Classifier | None, rows: Tensor, steps: int) -> None:
        self.student, self.rows, self.steps = _Side(student), rows, steps
        self.teacher = _Side(teacher) if teacher else _Side(student)  # looked into only where there is one

    def connect(self, term: Term) -> Connection:
        """Return what a term compares, and how."""
        names = _names(term.on) or self._default(term)
        if "teacher" not in term.needs:
            return Connection(Comparison(term.function), (self.student.tap(names[:1], term)[0].name,))
        there = self.teacher.tap(_names(term.teacher_on) or names, term)
        if term.spec.shares_head:
            self.student.taps[PROJECTED.name] = PROJECTED
            comparison = Comparison(feature_mse, layout="map", same_size=True)
            return Connection(self._placed(comparison), (PROJECTED.name,), (there[0].name,))
        here = self.student.tap(names, term)
        _check_taps(term, here, there)
        comparison = self._placed(self._comparison(term, here, there))
        return Connection(comparison, tuple(tap.name for tap in here), tuple(tap.name for tap in there))

    def _placed(self, comparison: Comparison) -> Comparison:
        return comparison.to(self.student.classifier.mean.device)

    def _default(self, term: Term) -> tuple[str, ...]:
        if term.spec.on != "layers":
            return (term.spec.tap,)
        count = min(self.student.count, self.teacher.count)
        return tuple(f"stage:{number}/{count}" for number in range(1, count + 1))

    def _comparison(self, term: Term, here: list[Tap], there: list[Tap]) -> Comparison:
        spec = term.spec
        layout = LAYOUTS.get(spec.on, "any")
        shapes = tuple((_laid_out(s, layout), _laid_out(t, layout)) for s, t in zip(here, there, strict=True))
        site = _Site(self.steps, self.rows, term, self.teacher, there[-1], shapes)
        return Comparison(
            spec.build(site, **term.options) if spec.learned else term.function,
            layout=layout,
            projectors=[projector(s, t) for s, t in shapes] if _projects(term) else (),
            listed=spec.on == "layers",
            same_size=spec.same_size,
            channels_first=spec.channels_first,
        )


def _projects(term: Term) -> bool:
    return term.spec.projects if term.project is None else term.project


def _never_negative(classifier: Classifier, tap: Tap) -> bool:
    shape = (2, classifier.card.channels, *classifier.card.size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(classifier.mean.device)
    was, looking = classifier.training, classifier.replace(taps=(tap,)).eval()
    with torch.no_grad():
        lowest = looking(noise).features[tap.name].min()
    looking.train(was)
    return bool(lowest >= 0)


def _names(on: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if on is None else (on,) if isinstance(on, str) else tuple(on)


def _taps(classifier: Classifier, names: Sequence[str], term: Term) -> list[Tap]:
    """Return the taps; raise a `ConfigError` that lists the stages where one is not there."""
    try:
        return list(resolve(classifier, names))
    except ModelError as error:
        found = ", ".join(f"{tap.name} = {tap.path} {tap.shape}" for tap in stages(trace(classifier)))
        raise ConfigError(f"The loss {term.title} cannot look there. {error} Stages: {found}.") from None


def _check_taps(term: Term, here: list[Tap], there: list[Tap]) -> None:
    if len(here) != len(there):
        raise ConfigError(
            f"The loss {term.title} looks at {len(here)} places in the student and {len(there)} in the teacher. "
            "Give as many in `teacher_on` as in `on`."
        )
    listed = term.spec.on == "layers"
    if not listed and len(here) > 1:
        raise ConfigError(f"The loss {term.title} compares one place; `on` lists {len(here)}. Write a term for each.")
    flat = [tap for tap in (*here, *there) if tap.kind == "vector"]
    if term.spec.on in ("maps", "layers") and flat:
        shape = ", ".join(f"'{tap.name}' {tap.shape}" for tap in flat)
        raise ConfigError(
            f"The loss {term.title} compares maps, and a vector is all there is at {shape}. Choose a stage of maps on "
            "both sides, or a loss on vectors: rkd, pkt, sp, feature_mse, srrl or crd."
        )
    if len(here) < term.spec.least_places:
        least = {2: "two"}.get(term.spec.least_places, str(term.spec.least_places))
        raise ConfigError(f"The loss {term.title} compares layers, so `on` must list {least} places or more.")


def _laid_out(tap: Tap, layout: str) -> Shape:
    """Return the shape of a tap's features in a layout of `Comparison`."""
    if layout == "vector":
        return (channels(tap.shape),)
    return (channels(tap.shape), 0, 0) if layout == "map" else tap.shape

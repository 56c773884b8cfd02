"""Wiring of feature terms: the taps of student and teacher that a term compares, and the layers in between.

Everything is determined by one traced forward pass per model: projectors from shapes, the classifier of SRRL and SimKD
from the teacher's last layer, the margins of OFD from its batch norm. The models need no changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from potstill import distributed, words
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
    """The wiring of an objective. student: with the taps of its terms; under SimKD it ends in the teacher's head.

    taps: of the teacher. connections: by title, for terms with features or parameters.
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
    """Return the features and layers that the terms need.

    teacher: None if it has no features. rows: int64 [N], the training images; steps: of the whole training; seed: of
    the new layers; mixed: whether images are mixed. Raises `ConfigError` for unknown taps and for features that cannot
    be compared.
    """
    used = [term for term in terms if term.weight > 0]
    seeing = [term for term in used if term.sees_features]
    plain = [term for term in used if term.spec.learned and not term.sees_features]
    without_features = _Site(steps, rows)
    connections = {term.title: Connection(term.spec.build(without_features, **term.options)) for term in plain}
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
                f"The loss {term.title} compares features, but this teacher has only logits. Use a loss on logits, "
                "such as kd, or a network with its weights as the teacher."
            )
        if term.spec.remembers and mixed:
            problems.append(
                f"The loss {term.loss} contrasts each image with the others, so images cannot be mixed. Leave out mix."
            )
        if term.spec.remembers and distributed.world() > 1:
            problems.append(
                f"The loss {term.loss} has a memory bank of all images in one process. Run it without torchrun."
            )
    if problems:
        raise ConfigError(*problems)


def _with_teachers_head(seeing: Sequence[Term], student: Classifier, teacher: Classifier | None) -> Classifier:
    """Return the student, ending in a projector and the teacher's classifier if a loss (SimKD) shares it."""
    for term in seeing:
        if term.spec.shares_head and teacher is not None:
            names = _names(term.on) or (term.spec.tap,)
            (on,), (there,) = _taps(student, names, term), _taps(teacher, _names(term.teacher_on) or names, term)
            return reuse_head(student, on, teacher, there, **term.options)
    return student


class _Side:
    """One of the two networks: its trace, and the taps used so far."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.trace: Trace = trace(classifier)
        self.count = len(stages(self.trace))
        self.taps: dict[str, Tap] = {}

    def tap(self, names: Sequence[str], term: Term) -> list[Tap]:
        """Return the taps and register them."""
        taps = _taps(self.classifier, names, term)
        if term.spec.before_relu:
            taps = [before_relu(self.trace, tap) for tap in taps]
        self.taps |= {tap.name: tap for tap in taps}
        return taps


@dataclass(frozen=True)
class _Site:
    """The `Site` of a loss with parameters. For a loss on logits there is no term and no teacher."""

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
                f"The loss {term.title} needs the input of the teacher's last layer, {weight.shape[1]} features, but "
                f"the tap '{term.teacher_on or term.on}' has {width}. Leave out `on` and `teacher_on`, or use 'pooled'."
            )
        return weight.cpu(), bias.cpu()

    def batch_norm(self) -> nn.BatchNorm2d:
        teacher, tap, term = self._there()
        model, norm = teacher.classifier.card.typed, batch_norm_before(teacher.trace, tap)
        if norm is None or self.rectified:
            raise ConfigError(
                f"The loss {term.title} compares maps between a batch norm and its ReLU, but '{tap.name}' of {model} "
                f"is not one. Name a BatchNorm2d layer with `teacher_on`; `potstill layers {words.argument(model)}` "
                "lists them."
            )
        return norm

    def _there(self) -> tuple[_Side, Tap, Term]:
        assert self.teacher and self.tap and self.term, "a loss on logits has no tap of the teacher"
        return self.teacher, self.tap, self.term


class _Pair:
    """Student and teacher, connected term by term."""

    def __init__(self, student: Classifier, teacher: Classifier | None, rows: Tensor, steps: int) -> None:
        self.student, self.rows, self.steps = _Side(student), rows, steps
        self.teacher = _Side(teacher) if teacher else _Side(student)  # not used without a teacher

    def connect(self, term: Term) -> Connection:
        """Return the connection of a term."""
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
    training, tapped = classifier.training, classifier.replace(taps=(tap,)).eval()
    with torch.no_grad():
        lowest = tapped(noise).features[tap.name].min()
    tapped.train(training)
    return bool(lowest >= 0)


def _names(on: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if on is None else (on,) if isinstance(on, str) else tuple(on)


def _taps(classifier: Classifier, names: Sequence[str], term: Term) -> list[Tap]:
    """Return the taps; raise a `ConfigError` that lists the stages if one is unknown."""
    try:
        return list(resolve(classifier, names))
    except ModelError as error:
        known = ", ".join(f"{tap.name} = {tap.path} {tap.shape}" for tap in stages(trace(classifier)))
        raise ConfigError(f"The loss {term.title} has an unknown tap. {error} Stages: {known}.") from None


def _check_taps(term: Term, here: list[Tap], there: list[Tap]) -> None:
    if len(here) != len(there):
        raise ConfigError(
            f"The loss {term.title} has {len(here)} taps in the student and {len(there)} in the teacher. "
            "Give as many in `teacher_on` as in `on`."
        )
    listed = term.spec.on == "layers"
    if not listed and len(here) > 1:
        raise ConfigError(
            f"The loss {term.title} compares one tap, but `on` lists {len(here)}. Write a term for each of them."
        )
    flat = [tap for tap in (*here, *there) if tap.kind == "vector"]
    if term.spec.on in ("maps", "layers") and flat:
        shape = ", ".join(f"'{tap.name}' {tap.shape}" for tap in flat)
        raise ConfigError(
            f"The loss {term.title} compares maps, but there are vectors at {shape}. Choose a stage with maps in both "
            "networks, or a loss on vectors: rkd, pkt, sp, feature_mse, srrl or crd."
        )
    if len(here) < term.spec.least_places:
        raise ConfigError(
            f"The loss {term.title} compares layers, so `on` must list at least {term.spec.least_places} taps."
        )


def _laid_out(tap: Tap, layout: str) -> Shape:
    """Return the shape of a tap's features in a layout of `Comparison`."""
    if layout == "vector":
        return (channels(tap.shape),)
    return (channels(tap.shape), 0, 0) if layout == "map" else tap.shape

"""Feature terms, wired: which taps of student and teacher a term compares, and the layers in between.

Everything is read off two models by one watched forward pass each: shapes give the projectors, the teacher's last
layer the classifier that SRRL and SimKD borrow, its batch norm the margins of OFD. Nobody edits a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from potstill import distributed
from potstill.errors import ConfigError, ModelError
from potstill.losses import LAYERS, LEARNED, MAPS, NEEDS_PROJECTOR, POOLED
from potstill.losses.features import feature_mse
from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import Trace, trace
from potstill.models.inspect.heads_and_norms import batch_norm_before, before_relu, last_linear
from potstill.models.inspect.taps import resolve, stages
from potstill.models.outputs import Classifier
from potstill.models.projectors import Shape, channels, projector
from potstill.models.shared_head import PROJECTED, reuse_head
from potstill.models.zoo import seeded
from potstill.objectives.feature_comparison import Comparison
from potstill.objectives.objective import Connection, Term

POOLED_BY_DEFAULT = POOLED | {"rkd", "pkt"}
CURRICULUM = 20  # CTKD's temperature grows hard over a twentieth of the steps, as published for ImageNet


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
    plain = [term for term in used if term.loss == "ctkd"]
    connections = {t.title: Connection(LEARNED["ctkd"](max(1, steps // CURRICULUM), **t.options)) for t in plain}
    if not seeing:
        return Wiring(student, connections=connections)
    _check(seeing, teacher, mixed)
    with seeded(seed):
        student = _with_teachers_head(seeing, student, teacher)
        pair = _Pair(student, teacher, rows)
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
        if term.loss == "crd" and mixed:
            problems.append("The loss crd tells every image from all others, so images cannot be mixed: leave out mix.")
        if term.loss == "crd" and distributed.world() > 1:
            problems.append("The loss crd keeps a memory of every image, in one process: run it without torchrun.")
    if problems:
        raise ConfigError(*problems)


def _with_teachers_head(seeing: Sequence[Term], student: Classifier, teacher: Classifier) -> Classifier:
    """Return the student, ending in a projector and the teacher's classifier where a term is SimKD's."""
    for term in seeing:
        if term.loss == "simkd":
            names = _names(term.on) or ("stage:-1",)
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
        if term.loss == "ofd":
            found = [before_relu(self.trace, tap) for tap in found]
        self.taps |= {tap.name: tap for tap in found}
        return found


class _Pair:
    """Student and teacher, connected term by term."""

    def __init__(self, student: Classifier, teacher: Classifier | None, rows: Tensor) -> None:
        self.student, self.rows = _Side(student), rows
        self.teacher = _Side(teacher) if teacher else _Side(student)  # looked into only where there is one

    def connect(self, term: Term) -> Connection:
        """Return what a term compares, and how."""
        names = _names(term.on) or self._default(term)
        if "teacher" not in term.needs:
            return Connection(Comparison(term.function), (self.student.tap(names[:1], term)[0].name,))
        theirs = self.teacher.tap(_names(term.teacher_on) or names, term)
        if term.loss == "simkd":
            self.student.taps[PROJECTED.name] = PROJECTED
            comparison = Comparison(feature_mse, layout="map", same_size=True)
            return Connection(self._placed(comparison), (PROJECTED.name,), (theirs[0].name,))
        ours = self.student.tap(names, term)
        _check_taps(term, ours, theirs)
        comparison = self._placed(self._comparison(term, ours, theirs))
        return Connection(comparison, tuple(tap.name for tap in ours), tuple(tap.name for tap in theirs))

    def _placed(self, comparison: Comparison) -> Comparison:
        return comparison.to(self.student.classifier.mean.device)

    def _default(self, term: Term) -> tuple[str, ...]:
        if term.loss in LAYERS:
            count = min(self.student.count, self.teacher.count)
            return tuple(f"stage:{number}/{count}" for number in range(1, count + 1))
        return ("pooled",) if term.loss in POOLED_BY_DEFAULT else ("stage:-1",)

    def _comparison(self, term: Term, ours: list[Tap], theirs: list[Tap]) -> Comparison:
        projects = term.loss in NEEDS_PROJECTOR if term.project is None else term.project
        layout = "map" if term.loss in MAPS | LAYERS else "vector" if term.loss in POOLED else "any"
        shapes = [(_laid_out(s, layout), _laid_out(t, layout)) for s, t in zip(ours, theirs, strict=True)]
        return Comparison(
            self._loss(term, shapes, theirs[-1]),
            layout=layout,
            projectors=[projector(s, t) for s, t in shapes] if projects else (),
            listed=term.loss in LAYERS,
            same_size=term.loss == "ofd",
            channels_first=term.loss == "vid",
        )

    def _loss(self, term: Term, shapes: list[tuple[Shape, Shape]], tap: Tap) -> Callable[..., Tensor]:
        ours, theirs = ([channels(shape) for shape in side] for side in zip(*shapes, strict=True))
        match term.loss:
            case "vid":
                return LEARNED["vid"](theirs[0], **term.options)
            case "srrl":
                return self._srrl(term, ours[0], theirs[0], tap)
            case "ofd":
                return LEARNED["ofd"](ours[0], self._batch_norm(tap), **term.options)
            case "crd":
                return LEARNED["crd"](ours[0], theirs[0], self.rows, **term.options)
            case "reviewkd":
                return LEARNED["reviewkd"](ours, theirs, **term.options)
        return term.function

    def _srrl(self, term: Term, ours: int, theirs: int, tap: Tap) -> nn.Module:
        loss = LEARNED["srrl"](ours, *self._classifier(term, theirs), **term.options)
        if not _never_negative(self.teacher.classifier, tap):
            loss.connector[-1] = nn.Identity()  # its ReLU is for features that come from one
        return loss

    def _classifier(self, term: Term, width: int) -> tuple[Tensor, Tensor]:
        weight, bias = last_linear(self.teacher.trace)
        if weight.shape[1] != width:
            raise ConfigError(
                f"The loss {term.title} compares what the teacher's last layer sees, {weight.shape[1]} values; its tap "
                f"'{term.teacher_on or term.on}' gives {width}. Leave out `on` and `teacher_on`, or take 'pooled'."
            )
        return weight.cpu(), bias.cpu()

    def _batch_norm(self, tap: Tap) -> nn.BatchNorm2d:
        """Return the teacher's batch norm before a tap, whose values have to go below 0 as well."""
        model = self.teacher.classifier.card.model
        norm = batch_norm_before(self.teacher.trace, tap)
        if norm is None or _never_negative(self.teacher.classifier, tap):
            raise ConfigError(
                f"The loss ofd compares maps behind a batch norm and before its ReLU, and '{tap.name}' of {model} is "
                f"none. Name a BatchNorm2d layer with `teacher_on`; `potstill layers {model}` lists them."
            )
        return norm


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


def _check_taps(term: Term, ours: list[Tap], theirs: list[Tap]) -> None:
    if len(ours) != len(theirs):
        raise ConfigError(
            f"The loss {term.title} looks at {len(ours)} places in the student and {len(theirs)} in the teacher. "
            "Give as many in `teacher_on` as in `on`."
        )
    if term.loss not in LAYERS and len(ours) > 1:
        raise ConfigError(f"The loss {term.title} compares one place; `on` lists {len(ours)}. Write a term for each.")
    flat = [tap for tap in (*ours, *theirs) if tap.kind == "vector"]
    if term.loss in MAPS | LAYERS and flat:
        shape = ", ".join(f"'{tap.name}' {tap.shape}" for tap in flat)
        raise ConfigError(
            f"The loss {term.title} compares maps, and a vector is all there is at {shape}. Choose a stage of maps on "
            "both sides, or a loss on vectors: rkd, pkt, sp, feature_mse, srrl or crd."
        )
    if term.loss == "fsp" and len(ours) < 2:
        raise ConfigError("The loss fsp compares the flow between layers, so `on` must list two places or more.")


def _laid_out(tap: Tap, layout: str) -> Shape:
    """Return the shape of a tap's features in a layout of `Comparison`."""
    if layout == "vector":
        return (channels(tap.shape),)
    return (channels(tap.shape), 0, 0) if layout == "map" else tap.shape

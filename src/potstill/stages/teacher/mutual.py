"""A teacher that is trained together with its student (deep mutual learning)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill import artifacts
from potstill.model_files.folder import load_model, save_model
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.objectives.mutual import Mutual, Peers
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher
from potstill.stages.teacher.prepared import TeacherSource, TrainingContext
from potstill.training import devices
from potstill.training.predict import Model

PEER = "peer"  # folder of the network that was trained with a student
OTHER = 1_000_003  # added to the student's seed: peers of equal initialisation would stay equal


@dataclass(frozen=True, eq=False, kw_only=True)
class PeerTeacher(TeacherSource):
    """A network that is trained from scratch with every student. make: builds it from a student's seed."""

    make: Callable[[int], Classifier]

    def function(self, taps: tuple[Tap, ...] = ()) -> None:
        """Return None: peers are evaluated in the training step itself."""

    def check(self, terms: Sequence[Term], classes: int) -> None:
        """Raise `ConfigError` for wrong terms, and for those that need a trained teacher."""
        super().check(terms, classes)
        Mutual(terms, classes=classes)

    def objective(self, terms: Sequence[Term], training: TrainingContext) -> Mutual:
        """Return the joint objective of student and peer."""
        return Mutual(terms, classes=len(training.data.manifest.classes), aux_weight=training.aux_weight)

    def trained_with(self, student: Classifier, seed: int) -> Peers:
        """Return the student with a new peer."""
        return Peers(student, self.make(seed).to(devices.device()))

    def save_beside(self, trained: Classifier, folder: Path) -> None:
        """Save the peer into a subfolder of the student's folder."""
        assert isinstance(trained, Peers)
        save_model(trained.peer, folder / PEER)

    def tested(self, student: Path) -> Model:
        """Return the peer of the first student."""
        return load_model(student / PEER)


def peer(config: OneTeacher, data: Data, *, seed: int) -> PeerTeacher:
    """Return a teacher that is trained from scratch together with every student."""

    def make(student_seed: int) -> Classifier:
        return data.model(config.model, weights=config.weights, options=config.options, seed=student_seed + OTHER)

    card = make(seed).card
    identity = artifacts.fingerprint(["mutual", card.to_json()])
    return PeerTeacher(make=make, card=card, identity=identity, title=f"Mutual learning with {config.model}")

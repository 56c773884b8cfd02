"""An ensemble of teachers as one teacher."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from potstill import artifacts
from potstill.errors import ConfigError
from potstill.models.class_map import some
from potstill.models.hooks import Tap
from potstill.stages.dataset import Data
from potstill.stages.recipe import Member, TeacherConfig
from potstill.stages.teacher.prepared import Replay, TeacherSource, accuracy_record
from potstill.teachers.base import Teacher, averaged
from potstill.teachers.ensemble import AveragedTeacher, EnsembleModel
from potstill.words import plural


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsembleTeacher(TeacherSource):
    """The weighted mean of the "probabilities" or "logits" (`average`) of `members`."""

    members: tuple[TeacherSource, ...]
    weights: tuple[float, ...]
    average: str = "probabilities"

    def bind(self, data: Data, replay: Replay) -> EnsembleTeacher:
        """Return this ensemble with every member bound."""
        return dataclasses.replace(self, members=tuple(member.bind(data, replay) for member in self.members))

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`; there are no features."""
        functions = [function for member in self.members if (function := member.function()) is not None]
        return AveragedTeacher(functions, self.weights, average=self.average)

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] for images without augmentation; None if a member has none for them."""
        if self.model is not None:
            return super().logits(data, rows)
        parts = [member.logits(data, rows) for member in self.members]
        logits = [torch.from_numpy(part) for part in parts if part is not None]
        return averaged(logits, self.weights, self.average).numpy() if len(logits) == len(parts) else None

    def assert_unchanged(self) -> None:
        """Assert that no member changed by a bit."""
        for member in self.members:
            member.assert_unchanged()


def ensemble(config: TeacherConfig, members: tuple[TeacherSource, ...], data: Data) -> EnsembleTeacher:
    """Return the members of `config.ensemble` as one teacher; raise `ConfigError` if one lacks a class."""
    weights = tuple(each.weight for each in config.ensemble)
    names = [each.model for each in config.ensemble]
    problems = [problem for pair in zip(names, members, strict=True) for problem in _lacking(*pair, data)]
    if problems:
        raise ConfigError(*problems)
    models = [member.model for member in members if member.model is not None]
    whole = len(models) == len(members)
    teacher = EnsembleTeacher(
        members=members,
        weights=weights,
        average=config.average,
        model=EnsembleModel(models, weights, config.average, members[0].card) if whole else None,
        card=members[0].card,
        identity=artifacts.fingerprint([[member.identity for member in members], weights, config.average]),
        title=f"Ensemble of {plural(len(members), 'teacher')}: {', '.join(names)}",
        facts={"members": [_facts(*pair) for pair in zip(config.ensemble, members, strict=True)]},
    )
    return dataclasses.replace(teacher, record=accuracy_record(teacher.validation_logits(data), data))


def _facts(config: Member, member: TeacherSource) -> dict[str, object]:
    return {"name": config.model, "weight": config.weight, "validation_accuracy": member.accuracy}


def _lacking(name: str, member: TeacherSource, data: Data) -> list[str]:
    if member.known is None:
        return []
    lacking = [each for place, each in enumerate(data.manifest.classes) if place not in member.known]
    return [
        f"The teacher {name} lacks classes of the data ({some(lacking)}), so its predictions cannot be averaged with "
        "the others'. Leave it out of the ensemble."
    ]

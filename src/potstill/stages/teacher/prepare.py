"""From a recipe's `teacher` to a `TeacherSource`: one of the kinds in `KINDS`, an ensemble of these, or a peer."""

from __future__ import annotations

from pathlib import Path

from potstill.objectives.balance import Balance
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, TeacherConfig, Views
from potstill.stages.teacher import exported, from_file, mutual, network, soft_labels
from potstill.stages.teacher.ensemble import ensemble
from potstill.stages.teacher.prepared import Kind, Preparation, TeacherSource

KINDS: tuple[Kind, ...] = (from_file.KIND, soft_labels.KIND, exported.KIND, network.KIND)
"""All kinds of single teachers; the first one that recognises the settings is used."""


def prepare_teacher(
    config: TeacherConfig, data: Data, folder: Path, *, views: Views, seed: int, balance: Balance = "none"
) -> TeacherSource:
    """Return the teacher, one or an ensemble, after training it if it has no weights.

    folder: of the teacher; the members of an ensemble have numbered subfolders. views, seed, balance: for a teacher
    that is trained here; its own `train.balance` goes before. Raises `ConfigError` for classes that do not match those
    of the data.
    """
    if config.mutual:
        return mutual.peer(config, data, seed=seed)
    own = "balance" in config.train.model_fields_set
    settings = config.train if own else config.train.model_copy(update={"balance": balance})
    if not config.ensemble:
        return _one(config, data, Preparation(folder, settings, views, seed))
    members = tuple(
        _one(each, data, Preparation(folder / str(number), settings, views, seed + number - 1))
        for number, each in enumerate(config.ensemble, 1)
    )
    return ensemble(config, members, data)


def trained_here(config: TeacherConfig) -> list[str]:
    """Return the names of the teachers that have no weights and are trained first."""
    every = config.ensemble or (config,)
    return [one.model for one in every if _kind(one) is network.KIND and network.is_trained_here(one)]


def teacher_size(config: TeacherConfig) -> int:
    """Return the largest input size of the teachers in pixels, 0 if they accept any."""
    return max(_kind(one).own_size(one) for one in (config.ensemble or (config,)))


def _one(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    return _kind(config).prepare(config, data, work)


def _kind(config: OneTeacher) -> Kind:
    return next(kind for kind in KINDS if kind.recognises(config))

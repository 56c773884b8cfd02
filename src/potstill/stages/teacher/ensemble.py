"""Several teachers as one."""

from __future__ import annotations

import dataclasses

from potstill import artifacts
from potstill.errors import ConfigError
from potstill.models.class_map import some
from potstill.stages.dataset import Data
from potstill.stages.recipe import TeacherConfig
from potstill.stages.teacher.prepared import Taught, record_of
from potstill.teachers.ensemble import EnsembleModel


def ensemble(config: TeacherConfig, members: tuple[Taught, ...], data: Data) -> Taught:
    """Return the members of `config.ensemble` as one teacher; raise `ConfigError` where one lacks a class."""
    for each, member in zip(config.ensemble, members, strict=True):
        if member.known is not None:
            lacking = [name for place, name in enumerate(data.manifest.classes) if place not in member.known]
            raise ConfigError(
                f"The teacher {each.model} does not know {some(lacking)}, so its answers cannot be averaged with the "
                "others'. Leave it out of the ensemble."
            )
    weights = tuple(each.weight for each in config.ensemble)
    names = [each.model for each in config.ensemble]
    told = [{"name": name, "weight": weight, "validation_accuracy": m.record.get("validation_accuracy", {}).get("last")}
            for name, weight, m in zip(names, weights, members, strict=True)]  # fmt: skip
    card = members[0].card
    models = [member.model for member in members]
    model = None if None in models else EnsembleModel(models, weights, config.average, card)
    identity = artifacts.fingerprint([[m.identity for m in members], weights, config.average])
    title = f"Brought {len(members)} teachers together: {', '.join(names)}"
    made = Taught(model, card, identity, title, {}, members=members, weights=weights, average=config.average,
                  facts={"members": told})  # fmt: skip
    rows = data.manifest.rows("validation", labelled=True)
    said = made.said(data, rows)
    return made if said is None else dataclasses.replace(made, record=record_of(said, data, rows))

"""A teacher of soft labels that `potstill label` wrote earlier."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file

from potstill import artifacts
from potstill.data.loader import Loader
from potstill.errors import ConfigError, RunError
from potstill.models.card_record import card_from_json
from potstill.models.hooks import Tap
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher
from potstill.stages.teacher.prepared import Kind, Preparation, Replay, TeacherSource
from potstill.stages.teacher.replay import pixels_fingerprint, probe
from potstill.teachers.base import Teacher
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.words import plural

FACTS, PROBE, LOGITS = "labels.json", "probe.safetensors", "logits"
SAME = 2 / 255  # tolerance of a pixel of a view between two machines


@dataclass(frozen=True, eq=False, kw_only=True)
class SoftLabelTeacher(TeacherSource):
    """Stored logits of views of the training images. folder: of the labels; labels: the facts in `labels.json`."""

    folder: Path
    labels: dict[str, Any]
    data: Data | None = None
    replay: Replay | None = None

    @property
    def view_limit(self) -> int:
        """The number of labelled views of each image."""
        return self.labels["views"]

    def bind(self, data: Data, replay: Replay) -> SoftLabelTeacher:
        """Return this teacher for the training images of `data`, in the views of `replay`."""
        return dataclasses.replace(self, data=data, replay=replay)

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`; there are no features. Raises as `opened` does."""
        assert self.data is not None and self.replay is not None, "call `bind` first"
        return opened(self.folder, self.labels, self.data, self.replay)


def _prepare(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    folder = Path(config.model)
    facts = _facts(folder)
    measured = facts["accuracy"] is not None
    record = {"validation_accuracy": dict.fromkeys(("last", "kept"), facts["accuracy"])} if measured else {}
    return SoftLabelTeacher(
        folder=folder,
        labels=facts,
        card=card_from_json(facts["card"], origin=f"The card in {folder / FACTS}"),
        identity=artifacts.fingerprint(facts["source"]),
        title=f"Read the soft labels of {facts['teacher']} from {folder}",
        record=record,
        known=None if facts["known"] is None else tuple(facts["known"]),
    )


class _Source(BaseModel):
    model_config = ConfigDict(extra="allow")

    images: str
    augmentation: str


class _LabelsRecord(BaseModel):
    """The keys of labels.json that are read back; it has others."""

    model_config = ConfigDict(extra="allow")

    source: _Source
    card: dict[str, Any]
    teacher: str
    accuracy: float | None
    known: list[Annotated[int, Field(ge=0)]] | None
    views: int = Field(ge=1)
    seed: int
    own_size: int = Field(ge=0, le=16_384)


def _facts(folder: Path) -> dict[str, Any]:
    artifacts.read_record(_LabelsRecord, folder / FACTS)
    return artifacts.read_json(folder / FACTS)


def opened(folder: Path, facts: dict[str, Any], data: Data, replay: Replay) -> Teacher:
    """Return the teacher, after checking that the views of the training are the labelled ones.

    Raises `ConfigError` for a training on other images, splits or views, and `RunError` if the pixels differ.
    """
    views, count = replay.views, replay.views.number(replay.epochs)
    loader = data.loader(augment=views.augment, seed=views.seed)
    problems = []
    if pixels_fingerprint(data) != facts["source"]["images"]:
        problems.append(
            f"{folder} has soft labels of other images, splits or classes. Use the data settings with which they were "
            "made, or label these images with `potstill label`."
        )
    if loader.view.fingerprint != facts["source"]["augmentation"]:
        problems.append(
            f"{folder} has soft labels of views with augment={facts['augment']} and seed={facts['seed']}, but the "
            f"recipe has augment={views.augment} and seed={views.seed} (or images of another size). Make them equal."
        )
    if count is None or count > facts["views"]:
        problems.append(
            f"{folder} has soft labels of {plural(facts['views'], 'view')} of each image, but the recipe uses "
            f"{'new ones in every pass' if count is None else count}. Set views: {facts['views']}, or label more."
        )
    if problems:
        raise ConfigError(*problems)
    store = Store(folder / LOGITS, data.manifest.rows("train"), facts["views"], facts["source"])
    if not store.complete:
        raise RunError(f"{folder} is not finished. Run the same `potstill label` command again to resume it.")
    _check_probe(store, loader, folder)
    return StoredTeacher(store, len(data.manifest.classes))


def _check_probe(store: Store, loader: Loader, folder: Path) -> None:
    stored, batch = load_file(folder / PROBE), probe(store, loader)
    image = batch.image.half().cpu().numpy()
    fits = image.shape == stored["image"].shape and np.array_equal(batch.index.cpu().numpy(), stored["index"])
    if not fits or np.abs(image.astype(np.float32) - stored["image"].astype(np.float32)).max() > SAME:
        raise RunError(
            f"The views of these images differ from those labelled in {folder}, perhaps because another version of "
            "potstill made them. Label the images again."
        )


def is_soft_labels(model: str) -> bool:
    """Return whether a path is a folder written by `potstill label`."""
    return (Path(model) / FACTS).is_file()


def _own_size(config: OneTeacher) -> int:
    return _facts(Path(config.model))["own_size"]


KIND = Kind(lambda config: is_soft_labels(config.model), _own_size, _prepare)

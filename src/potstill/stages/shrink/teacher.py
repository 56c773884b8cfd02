"""The teacher of all candidates: the best pretrained network, fine-tuned where that pays, or one trained here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.model_files import open
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.finetune.run import fitted
from potstill.stages.finetune.settings import FINE, FinetuneConfig
from potstill.stages.recipe import TeacherConfig, Views
from potstill.stages.run_folder import Journal
from potstill.stages.shrink.candidates import Base
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.shrink.speed import answering, measured, tier
from potstill.stages.teacher.prepare import prepare_teacher, teacher_size
from potstill.training.settings import TrainConfig

Untrained = Callable[[str, dict[str, Any]], Classifier]
SHARE = 0.15  # of the time
VIEWS = 1  # augmented views of each image that the probe of a teacher is fitted on
TRAINED_HERE = (
    ("builtin:resnet20-cifar", {"width": 24}),
    ("builtin:resnet20-cifar", {"width": 16}),
    ("builtin:resnet14-cifar", {"width": 16}),
    ("builtin:resnet8-cifar", {"width": 16}),
    ("builtin:cnn", {}),
)
"""Networks for small images, from the most accurate one; the first that there is time for is the teacher."""
STEPS = 400  # training steps below which a network is not worth asking
LONGEST = 24  # epochs


@dataclass(frozen=True)
class Made:
    """The folder of the teacher, and its validation accuracy in percent."""

    folder: Path
    name: str
    accuracy: float
    facts: dict[str, Any]

    def seconds(self) -> float:
        """Return the seconds in which it answers one image; 0 if it is an exported file, whose speed is not known."""
        model = open.find(str(self.folder))
        return answering(model) if isinstance(model, Classifier) else 0.0


def given(config: ShrinkConfig, folder: Path) -> Made:
    """Return the teacher of the settings; it is trained here if it is a name without weights."""
    assert config.teacher is not None
    settings = TeacherConfig(**config.teacher.model_dump())
    return _prepared(settings, config, folder)


def trained_here(config: ShrinkConfig, folder: Path, file: Path, images: int, untrained: Untrained) -> Made:
    """Return a network trained on the labels, for small images; its name and epochs are recorded in `file`.

    untrained: makes the network of a name and options.
    """
    if not file.is_file():
        artifacts.write_json(file, affordable(SHARE * 60 * config.minutes, images, untrained))
    chosen = artifacts.read_json(file)
    train = TrainConfig(
        epochs=chosen["epochs"], batch_size=batch_size(images), lr=0.003, precision="fp32", compile=False
    )
    return _prepared(TeacherConfig(model=chosen["model"], options=chosen["options"], train=train), config, folder)


def batch_size(images: int) -> int:
    """Return images a step: fewer of a small set, so that an epoch has steps enough."""
    return 32 if images < 4000 else 64


def affordable(seconds: float, images: int, untrained: Untrained) -> dict[str, Any]:
    """Return the first of `TRAINED_HERE` that is trained for enough steps within some seconds, and its epochs."""
    needed = max(-(-STEPS * batch_size(images) // images), 2)
    for model, options in TRAINED_HERE:
        fitting = min(tier(seconds / (images * measured(untrained(model, options), 1))), LONGEST)
        if fitting >= needed:
            break
    return {"model": model, "options": options, "epochs": max(fitting, needed)}


def _prepared(settings: TeacherConfig, config: ShrinkConfig, folder: Path) -> Made:
    data = dataset.prepare(config.data, at_least=teacher_size(settings))
    source = prepare_teacher(settings, data, folder, views=Views("auto"), seed=config.seed)
    assert source.accuracy is not None, "a teacher that answers new images was evaluated on those of validation"
    saved = (folder / zoo.CARD).is_file()  # a teacher that has a folder of its own stays there
    place = folder if saved else Path(settings.model)
    return Made(place, settings.model, source.accuracy, {"title": source.title})


def fine_tuned(base: Base, config: ShrinkConfig, folder: Path, journal: Journal, *, epochs: int) -> Made:
    """Return a pretrained network fitted to the images: a probe, and fine-tuning for `epochs`, if it is better."""
    settings = FinetuneConfig(
        data=config.data,
        model=base.model,
        weights=base.weights,
        options=base.options,
        mean=base.mean,
        std=base.std,
        views=VIEWS,
        unfreeze="all" if epochs else "none",
        train=TrainConfig(**{**FINE, "epochs": max(epochs, 1), "precision": "fp32", "compile": False}),
        seed=config.seed,
    )
    inputs = {"teacher": settings.to_json()}
    record = artifacts.stage(folder, inputs, lambda: fitted(settings, folder, journal))
    return Made(folder, base.model, record["validation_accuracy"], {"kept": record["kept"]})


def best(accuracies: Sequence[float], images: int) -> int:
    """Return the number of the first network, in the order of their size, within one standard error of the best probe.

    accuracies: out of fold in percent, on so many images.
    """
    top = max(accuracies) / 100
    error = 100 * math.sqrt(max(top * (1 - top), 0.25 / images) / images)
    return next(number for number, accuracy in enumerate(accuracies) if accuracy >= 100 * top - error)


def worth_tuning(accuracy: float, validation: int) -> bool:
    """Whether fine-tuning a probe of this accuracy in percent could be seen to help on so many validation images.

    Not if removing all its errors would be less than two standard errors.
    """
    error = 1 - accuracy / 100
    return error > 2 * math.sqrt(max(error * (1 - error), 0.25 / validation) / validation)


def epochs_of(file: Path, network: Classifier, minutes: float, images: int) -> int:
    """Return the epochs of fine-tuning that fit into the teacher's share of the time; recorded in `file`."""
    if not file.is_file():
        fitting = min(tier(SHARE * 60 * minutes / (images * measured(network, 1))), LONGEST)
        artifacts.write_json(file, {"epochs": fitting})
    return artifacts.read_json(file)["epochs"]

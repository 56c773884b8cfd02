"""The step `train`: a network with labels alone or with a teacher, and how its gradients and errors develop.

Unlike `distill` it trains no control beside it: an experiment has the controls that it compares.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from potstill import artifacts
from potstill.compress.formats import NumberFormat, parse_format
from potstill.config import Config, build
from potstill.errors import ConfigError
from potstill.evaluation import metrics
from potstill.evaluation.measured import over_seeds
from potstill.models import zoo
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier, bare
from potstill.names import SafeName
from potstill.objectives.objective import Term
from potstill.scheduling import Scheduler
from potstill.stages import dataset, test_split
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.student import identity_of
from potstill.stages.distill.train import StudentSetup
from potstill.stages.experiment import gradients
from potstill.stages.recipe import DataConfig, ObjectiveConfig, StudentConfig, TeacherConfig, Views
from potstill.stages.run_folder import Journal
from potstill.stages.side_by_side import Part, SideBySide, side_by_side
from potstill.stages.stage import stage
from potstill.stages.teacher import input_size
from potstill.stages.teacher.prepare import prepare_teacher, teacher_size
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.stages.training import Trained, train_classifier
from potstill.training.settings import TrainConfig

SAMPLED = 5000
NETWORK, LABELS = "network", Term(loss="cross_entropy")


class TrainStepConfig(Config):
    """A network, its images and its training.

    teacher, objective: labels alone without a teacher. gradient_format: to which gradients are rounded, such as "q4.4".
    """

    name: SafeName = NETWORK
    data: DataConfig
    network: StudentConfig = StudentConfig()
    teacher: TeacherConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    aux_weight: float = Field(default=0.3, ge=0, description="weight of auxiliary heads; 0: not trained")
    gradient_format: str | None = Field(default=None, description="number format of gradients; null: float32")
    train: TrainConfig = TrainConfig()
    augment: str | list[Any] = "auto"
    views: int | None = Field(default=None, ge=1)
    seeds: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)


def train_step(
    config: TrainStepConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Train the network of every seed in `folder`, which then is a model: that of the first seed; return the summary.

    `curves` has the metrics of every epoch, `gradients` those of every layer before and after training. scheduler:
    carries out the trainings, by default this process.
    """
    number = _format(config.gradient_format)
    side = side_by_side(scheduler, _replay, json.dumps(config.to_json()), folder)

    def work(journal: Journal) -> dict[str, Any]:
        return _carry_out(config, number, folder, side, journal)

    return stage("train", config, folder, work, name=config.name, command=command)


def _format(text: str | None) -> NumberFormat | None:
    try:
        return None if text is None else parse_format(text)
    except ConfigError as error:
        raise ConfigError(f"gradient_format: {error}") from None


def _replay(settings: str, folder: Path, side: SideBySide) -> None:
    """Carry out what `side` wants of the trainings of a step whose teacher is prepared."""
    _prepared(settings, folder).all(side)


@functools.lru_cache(maxsize=1)
def _prepared(settings: str, folder: Path) -> _Training:
    config = build(TrainStepConfig, json.loads(settings))
    data = _data(config)
    return _Training(config, data, _teacher(config, data, folder), _format(config.gradient_format), folder)


def _data(config: TrainStepConfig) -> Data:
    size = max(input_size.of_student(config.network), teacher_size(config.teacher) if config.teacher else 0)
    return train.with_labels_of(config.network, dataset.prepare(config.data, at_least=size), seed=config.data.seed)


def _carry_out(
    config: TrainStepConfig, number: NumberFormat | None, folder: Path, side: SideBySide, journal: Journal
) -> dict[str, Any]:
    data = journal.timed("data", "Read and split the images", lambda: _data(config))
    teacher = journal.timed("teacher", "Prepared the teacher", lambda: _teacher(config, data, folder))
    training = _Training(config, data, teacher, number, folder)
    group = journal.timed("training", "Trained", lambda: training.all(side))
    artifacts.write_json(folder / "student.json", {"folder": f"seed-{config.seed}"})
    models = {f"seed-{one.seed}": one.load() for one in group}
    identities = {name: model.card.weights_sha256 for name, model in models.items()}
    logits = journal.timed(
        "evaluation",
        "Evaluated the test split once",
        lambda: test_split.open_test(dict(models), identities, data, folder / "evaluation"),
    )
    label = data.manifest.label[data.manifest.rows("test", labelled=True)]
    figures = over_seeds([logits[name] for name in models], label)
    fresh = train.new_student(config.network, data, config.seed)
    first = next(iter(models.values()))
    layers = {
        "start": gradients.by_layer(fresh, data, aux_weight=config.aux_weight),
        "end": gradients.by_layer(_with_heads(fresh, first), data, aux_weight=config.aux_weight),
    }
    return {
        "data": data.facts(config.data.path),
        "models": {NETWORK: _cost(config, first, data) | figures},
        "train_accuracy": [_on_training(model, data) for model in models.values()],
        "curves": [artifacts.read_json(one.folder / "curve.json") for one in group],
        "gradients": layers,
        "survives": gradients.survives(layers["start"], number) if number else None,
    }


def _views(config: TrainStepConfig) -> Views:
    return Views(config.augment, config.views, config.seed)


def _teacher(config: TrainStepConfig, data: Data, folder: Path) -> TeacherSource | None:
    """Return the teacher, whose logits are cached beside the folder, for the other networks of the step."""
    if config.teacher is None:
        return None
    views = _views(config)
    teacher = prepare_teacher(
        config.teacher, data, folder / "teacher", views=views, seed=config.seed, balance=config.train.balance
    )
    replay = Replay(views, config.train.epochs, config.seeds, folder.parent / "stores", stored=config.teacher.stored)
    return teacher.bind(data, replay)


@dataclass(frozen=True)
class _Training:
    """The trainings of a step, one for each seed."""

    config: TrainStepConfig
    data: Data
    teacher: TeacherSource | None
    number: NumberFormat | None
    folder: Path

    def all(self, side: SideBySide) -> list[Trained]:
        """Return the networks of all seeds."""
        config, terms = self.config, self._terms
        if side.scheduler.parallel and self.teacher and not any(term.sees_features for term in terms):
            self.teacher.fill()  # once, before several processes would
        plan = functools.cache(lambda: train.planned(self._setup, self.data, config.seed))
        seeds = range(config.seed, config.seed + config.seeds)
        return side.all([Part(self.folder / f"seed-{seed}", functools.partial(self.of, seed), plan) for seed in seeds])

    def of(self, seed: int) -> Trained:
        """Return the network of a seed, trained unless it exists."""
        config, folder = self.config, self.folder / f"seed-{seed}"
        inputs = {
            "data": self.data.manifest.fingerprint,
            "settings": config.model_dump(mode="json", exclude={"name", "seeds", "seed", "network"}),
            "teacher": self.teacher.identity if self.teacher else None,
            "seed": seed,
            "network": identity_of(config.network),
        }
        return Trained(folder, seed, artifacts.stage(folder, inputs, lambda: self._train(seed, folder)))

    def _train(self, seed: int, folder: Path) -> dict[str, Any]:
        config = self.config
        network = train.new_student(config.network, self.data, seed)
        if self.number is not None:
            gradients.round_gradients(network, self.number)
        job = self._setup.job(self._terms, self.teacher, seed)
        record = train_classifier(network, self.data, job, folder).record
        artifacts.write_json(folder / "curve.json", _curve(folder))
        return record

    @property
    def _terms(self) -> tuple[Term, ...]:
        return self.config.objective.loss_terms if self.teacher else (LABELS,)

    @property
    def _setup(self) -> StudentSetup:
        config = self.config
        return StudentSetup(config.network, config.train, _views(config), config.aux_weight)


def _curve(folder: Path) -> dict[str, list[float]]:
    """Return loss, and training and validation figures, of every epoch."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "epoch": [row["epoch"] for row in rows],
        "loss": [round(row["train"]["loss"], 5) for row in rows],
        "validation_error": [round(100 - row["validation"]["accuracy"], 3) for row in rows],
    }


def _with_heads(fresh: Classifier, trained: Classifier) -> Classifier:
    """Return the trained network inside the fresh one, whose auxiliary heads are not saved."""
    bare(fresh.network).load_state_dict(bare(trained.network).state_dict())
    return fresh


def _cost(config: TrainStepConfig, model: Classifier, data: Data) -> dict[str, Any]:
    image = model.prepare(data.loader().clean_batch(data.manifest.rows("train")[:2]).image)
    return {
        "name": config.network.model,
        "parameters": zoo.count_parameters(model),
        "macs": cost(model.cpu().network, image.cpu()).total_macs,
    }


def _on_training(model: Classifier, data: Data) -> float:
    """Return the accuracy on the training images without augmentation in percent, of at most `SAMPLED` of them."""
    rows: np.ndarray = data.manifest.rows("train", labelled=True)
    rows = rows[:: -(-len(rows) // SAMPLED)]  # evenly: rows may be sorted by class
    return round(metrics.accuracy(test_split.clean_logits(model, data, rows), data.manifest.label[rows]), 3)

"""Teachers with pretrained weights, as `finetune` makes them: a probe for each fold, fine-tuned where that is better.

The probes of all folds share one frozen backbone, so the features of an image are computed once for all of them.
Whether fine-tuning is worth it is asked of held-out labels, over all folds at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from potstill import artifacts, progress
from potstill.data.manifest import UNLABELLED
from potstill.model_files.folder import load_model
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.finetune.backbone import backbone
from potstill.stages.finetune.choice import TUNED, choose
from potstill.stages.finetune.features import Features, extract
from potstill.stages.finetune.head import with_head
from potstill.stages.finetune.lazy_data import Images, Shown
from potstill.stages.finetune.probe import Probe, probe
from potstill.stages.finetune.settings import FINE, FinetuneConfig
from potstill.stages.finetune.tune import tune
from potstill.stages.recipe import TeacherConfig
from potstill.stages.selftrain.probed import LAYER, Backbone, Probed
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import training_set
from potstill.stages.test_split import answers
from potstill.training import engine


class Decoded(Images):
    """Images that are decoded already; what may be looked at are the labels of train and validation."""

    def __init__(self, data: Data) -> None:
        self.manifest = data.manifest
        self._data = data

    @property
    def data(self) -> Data:
        """The decoded images."""
        return self._data

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the contents and the size, whatever the labels."""
        contents = np.ascontiguousarray(self.manifest.digest).tobytes().hex()
        return artifacts.fingerprint([list(self._data.pixels.shape), contents])

    @property
    def shown(self) -> Shown:
        """How they are shown."""
        return Shown(self._data.channels, self._data.resize, self._data.crop)

    @property
    def labelled(self) -> np.ndarray:
        """The labelled rows of train and validation."""
        return np.concatenate([self.manifest.rows(split, labelled=True) for split in ("train", "validation")])


@dataclass(frozen=True)
class Fold:
    """A model that has not seen the labels of `held` but those of `seen` (int64 rows)."""

    model: Classifier | Probed
    identity: str
    seen: np.ndarray
    held: np.ndarray


def transferred(
    config: SelftrainConfig, teacher: TeacherConfig, data: Data, parts: list[np.ndarray], folder: Path
) -> list[Fold]:
    """Return a model for each part of the labelled rows, which it has not seen: its probes, or these fine-tuned.

    Raises `ModelError` where the weights do not fit or nobody says how their images were normalised.
    """
    chosen = _settings(config, teacher)
    images = Decoded(data)
    pretrained = _sized(backbone(chosen, images), teacher)
    features = extract(
        pretrained, images, [LAYER], views=chosen.views, augment=chosen.augment, seed=config.seed,
        precision=config.train.precision,
    )  # fmt: skip
    rows = data.manifest.rows("train", labelled=True)
    shared, own = Backbone(pretrained), bits(pretrained)
    probes, folds = [], []
    for held in parts:
        found = probe(features, _without(data, held).manifest, penalty=chosen.penalty, folds=chosen.folds,
                      seed=config.seed)  # fmt: skip
        identity = artifacts.fingerprint([own, found.head.weight.tolist(), found.head.bias.tolist()])
        probes.append(found)
        folds.append(Fold(Probed(shared, pretrained, found.head), identity, np.setdiff1d(rows, held), held))
    return (
        folds if chosen.unfreeze in ("none", 0) else _tuned(chosen, data, pretrained, features, probes, folds, folder)
    )


def _settings(config: SelftrainConfig, teacher: TeacherConfig) -> FinetuneConfig:
    card, transfer = teacher.card, config.transfer
    return FinetuneConfig(
        data=config.data, model=teacher.model, weights=teacher.weights, options=teacher.options,
        mean=card.mean if card else None, std=card.std if card else None, views=transfer.views,
        penalty=transfer.penalty, unfreeze=transfer.unfreeze, train={**FINE, "epochs": transfer.epochs},
        augment=config.noise if config.teacher_noise is None else config.teacher_noise, seed=config.seed,
    )  # fmt: skip


def _sized(pretrained: Classifier, teacher: TeacherConfig) -> Classifier:
    """Return the network at the size that the recipe gives it: small images are enlarged to it."""
    if teacher.card is None or teacher.card.size is None:
        return pretrained
    return pretrained.with_card(pretrained.card.replace(size=teacher.card.size))


def _without(data: Data, held: np.ndarray) -> Data:
    """Return the data without the labels of some rows."""
    label = data.manifest.label.copy()
    label[held] = UNLABELLED
    return replace(data, manifest=data.manifest.with_labels(label))


def _tuned(
    chosen: FinetuneConfig, data: Data, pretrained: Classifier, features: Features, probes: list[Probe],
    folds: list[Fold], folder: Path,
) -> list[Fold]:  # fmt: skip
    """Return the folds with fine-tuned models, if these are better on the labels that were held out."""
    made, right = [], ([], [])
    for number, (found, fold) in enumerate(zip(probes, folds, strict=True)):
        own = folder / f"fold-{number}"
        known = Decoded(training_set(data, fold.seen, 1, 1).data)
        start = with_head(engine.clone(pretrained).cpu(), found.layer, found.head)
        inputs = {"data": known.manifest.fingerprint, "start": fold.identity, "settings": chosen.to_json()}
        artifacts.stage(
            own, inputs, lambda k=known, s=start, o=own, n=number: tune(chosen, k, s, o, title=f"fine-tuning, fold {n}")
        )
        model = load_model(own)
        truth = data.manifest.label[fold.held]
        right[0].append(found.logits(features, fold.held).argmax(1) == truth)
        right[1].append(answers(model, data, fold.held).argmax(1) == truth)
        made.append(replace(fold, model=model, identity=model.card.weights_sha256))
    choice = choose(np.concatenate(right[0]), np.concatenate(right[1]))
    progress.note(choice.sentence.replace("validation images", "labels, by folds"))
    return made if choice.kept == TUNED else folds

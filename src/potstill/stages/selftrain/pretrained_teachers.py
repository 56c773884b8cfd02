"""Teachers with pretrained weights, as in `finetune`: a probe for each fold, fine-tuned if that is better.

The probes of all folds share one frozen backbone, so the features of an image are computed once for all of them.
Fine-tuned models are kept if they beat the probes on the held-out labels of all folds.
"""

from __future__ import annotations

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
from potstill.stages.finetune.lazy_data import Decoded
from potstill.stages.finetune.probe import Probe, probe
from potstill.stages.finetune.settings import FINE, FinetuneConfig
from potstill.stages.finetune.tune import tune
from potstill.stages.recipe import TeacherConfig
from potstill.stages.selftrain.probed import LAYER, Backbone, Probed
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import training_set
from potstill.stages.test_split import clean_logits
from potstill.training import engine
from potstill.training.settings import TrainConfig


@dataclass(frozen=True)
class Fold:
    """A model trained on the labels of `seen` and not on those of `held` (int64 rows)."""

    model: Classifier | Probed
    identity: str
    seen: np.ndarray
    held: np.ndarray


def transferred(
    config: SelftrainConfig, teacher: TeacherConfig, data: Data, parts: list[np.ndarray], folder: Path
) -> list[Fold]:
    """Return a model for each part of the labelled rows, trained without it: all probes, or all fine-tuned.

    Raises `ModelError` if the weights do not fit, or if the normalisation of their images is unknown.
    """
    chosen = _settings(config, teacher)
    images = Decoded(data)
    pretrained = _sized(backbone(chosen, images), teacher)
    features = extract(
        pretrained,
        images,
        [LAYER],
        views=chosen.views,
        augment=chosen.augment,
        seed=config.seed,
        precision=config.train.precision,
    )
    rows = data.manifest.rows("train", labelled=True)
    shared, own = Backbone(pretrained), bits(pretrained)
    probes, folds = [], []
    for held in parts:
        known = _without(data, held).manifest
        fitted = probe(features, known, penalty=chosen.penalty, folds=chosen.folds, seed=config.seed)
        identity = artifacts.fingerprint([own, fitted.head.weight.tolist(), fitted.head.bias.tolist()])
        probes.append(fitted)
        folds.append(Fold(Probed(shared, pretrained, fitted.head), identity, np.setdiff1d(rows, held), held))
    if chosen.unfreeze in ("none", 0):
        return folds
    return _tuned(chosen, data, pretrained, features, probes, folds, folder)


def _settings(config: SelftrainConfig, teacher: TeacherConfig) -> FinetuneConfig:
    card, transfer = teacher.card, config.transfer
    return FinetuneConfig(
        data=config.data,
        model=teacher.model,
        weights=teacher.weights,
        options=teacher.options,
        mean=card.mean if card else None,
        std=card.std if card else None,
        views=transfer.views,
        penalty=transfer.penalty,
        unfreeze=transfer.unfreeze,
        train=TrainConfig(**{**FINE, "epochs": transfer.epochs}),
        augment=config.noise if config.teacher_noise is None else config.teacher_noise,
        seed=config.seed,
    )


def _sized(pretrained: Classifier, teacher: TeacherConfig) -> Classifier:
    """Return the network with the input size of the recipe, to which small images are enlarged."""
    if teacher.card is None or teacher.card.size is None:
        return pretrained
    return pretrained.with_card(pretrained.card.replace(size=teacher.card.size))


def _without(data: Data, held: np.ndarray) -> Data:
    """Return the data without the labels of some rows."""
    label = data.manifest.label.copy()
    label[held] = UNLABELLED
    return replace(data, manifest=data.manifest.with_labels(label))


def _tuned(
    chosen: FinetuneConfig,
    data: Data,
    pretrained: Classifier,
    features: Features,
    probes: list[Probe],
    folds: list[Fold],
    folder: Path,
) -> list[Fold]:
    """Return the folds with fine-tuned models if these are better on the held-out labels, else as they are."""
    tuned: list[Fold] = []
    correct: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, (fitted, fold) in enumerate(zip(probes, folds, strict=True)):
        model = _tuned_fold(chosen, data, pretrained, fitted, fold, folder / f"fold-{number}", number)
        label = data.manifest.label[fold.held]
        correct[0].append(fitted.logits(features, fold.held).argmax(1) == label)
        correct[1].append(clean_logits(model, data, fold.held).argmax(1) == label)
        tuned.append(replace(fold, model=model, identity=model.card.weights_sha256))
    choice = choose(np.concatenate(correct[0]), np.concatenate(correct[1]), image="cross-validated label")
    progress.note(choice.sentence)
    return tuned if choice.kept == TUNED else folds


def _tuned_fold(
    chosen: FinetuneConfig,
    data: Data,
    pretrained: Classifier,
    fitted: Probe,
    fold: Fold,
    folder: Path,
    number: int,
) -> Classifier:
    """Return the model of a fold, fine-tuned from its probe in `folder`."""
    known = Decoded(training_set(data, fold.seen, 1, 1).data)
    start = with_head(engine.clone(pretrained).cpu(), fitted.layer, fitted.head)
    inputs = {"data": known.manifest.fingerprint, "start": fold.identity, "settings": chosen.to_json()}
    title = f"Fine-tuning, fold {number}"
    artifacts.stage(folder, inputs, lambda: tune(chosen, known, start, folder, title=title))
    return load_model(folder)

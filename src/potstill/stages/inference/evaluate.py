"""Using a model that exists: measure it on a data set, or ask it about single images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import config, distributed
from potstill.data.manifest import SPLITS, Manifest
from potstill.data.pixels import load_pixels
from potstill.data.splits import limit as limited
from potstill.errors import ConfigError, DataError, ModelError, did_you_mean
from potstill.evaluation.measured import measured
from potstill.model_files.open import find
from potstill.models import input_facts
from potstill.models.card import Card
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig
from potstill.stages.test_split import answers
from potstill.training.predict import Model


@dataclass(frozen=True)
class Said:
    """What a model said of a split: logits float32 [N, K], labels int64 [N] among its `classes` [K]."""

    logits: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]


def ask(model: str, path: str, *, weights: str | Path | None, split: str, limit: int | None) -> Said:
    """Return what a model says of the labelled images of a split, computed in float32."""
    if split not in SPLITS:
        raise ConfigError(f"There is no split '{split}'.{did_you_mean(split, SPLITS)} Splits: {', '.join(SPLITS)}.")
    found = find(model)
    settings = _data_settings(model, path)
    manifest = dataset.read(settings)
    if limit:
        manifest = limited(manifest, limit, seed=settings.seed)
    if found is None:
        found = _named(model, weights, manifest, settings)
    manifest = manifest.select(manifest.rows(split, labelled=True))  # the others are not even decoded
    data = _shown(found.card, manifest)
    rows = np.arange(len(manifest))
    label, classes = _labels(found.card, manifest, rows)
    return Said(answers(found, data, rows), label, classes)


def evaluate(model: str, path: str, *, weights: str | Path | None, split: str, limit: int | None) -> dict[str, Any]:
    """Return accuracy in percent with its 95 % interval, per class, loss and calibration error."""
    said = ask(model, path, weights=weights, split=split, limit=limit)
    return {
        "model": model,
        "data": path,
        "split": split,
        **measured(said.logits, said.label, classes=said.classes),
    }


def _data_settings(model: str, path: str) -> DataConfig:
    """Return the settings that split `path` as the run did, where `model` is the folder of a run or a transfer."""
    for recipe in (Path(model) / "recipe.yaml", Path(model) / "finetune.yaml"):
        if recipe.is_file():
            return config.build(DataConfig, {**config.read_yaml(recipe)["data"], "path": path})
    return DataConfig(path=path)


def _named(model: str, weights: str | Path | None, manifest: Manifest, settings: DataConfig) -> Model:
    if weights is None:
        raise ModelError(
            f"{model} is the name of a network, not of a trained model. Add --weights FILE, or give a run folder, "
            "a stage folder or an .onnx file."
        )
    sample = manifest.select(np.arange(min(len(manifest), 64)))  # enough to see size and channels
    return dataset.prepare(settings, manifest=sample, at_least=input_facts.own_size(model)).model(
        model, weights=weights
    )


def _shown(card: Card, manifest: Manifest) -> Data:
    with distributed.main_first():
        pixels = load_pixels(manifest, size=card.crop, resize=card.resize, channels=card.channels, keep_small=False)
    return Data(manifest, pixels, card.crop, card.resize)


def _labels(card: Card, manifest: Manifest, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels in the order of the model's classes, matched by name."""
    unknown = [name for name in manifest.classes if name not in card.classes]
    if unknown:
        raise DataError(
            f"The data has classes that the model does not know: {', '.join(unknown[:5])}. It knows "
            f"{', '.join(card.classes[:8])}{', ...' if len(card.classes) > 8 else ''}. Rename the class folders."
        )
    position = np.array([card.classes.index(name) for name in manifest.classes])
    return position[manifest.label[rows]], card.classes

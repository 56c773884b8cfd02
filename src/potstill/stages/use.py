"""Using a model that exists: measure it on a data set, or ask it about single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import artifacts, config, processes, progress
from potstill.data.manifest import SPLITS, Manifest
from potstill.data.pixels import load_pixels, one_image
from potstill.data.splits import limit as limited
from potstill.data.views import CLEAN
from potstill.engine import Model
from potstill.errors import ConfigError, DataError, ModelError, did_you_mean
from potstill.measure import metrics
from potstill.measure.statistics import proportion_interval
from potstill.models import facts, zoo
from potstill.models.card import Card
from potstill.models.exported import SUFFIXES, open_exported
from potstill.models.packed import is_packed, load_packed
from potstill.stages import data as data_stage
from potstill.stages.data import Data
from potstill.stages.evaluation import answers
from potstill.stages.recipe import DataConfig


def find(model: str) -> Model | None:
    """Return the model at a path (a run or stage folder, an exported or packed file); None where `model` is a name."""
    path = Path(model)
    if path.suffix in SUFFIXES:
        return open_exported(path)
    if is_packed(path):
        return load_packed(path)
    if (path / "student.json").is_file():
        return zoo.load(path / artifacts.read_json(path / "student.json")["folder"])
    if (path / "recipe.yaml").is_file():
        raise ModelError(f"The run in {path} is not finished. Finish it: potstill run {path}/recipe.yaml --out {path}")
    if path.is_dir():
        return zoo.load(path)
    return None


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
    manifest = data_stage.read(settings)
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
    logits, label, classes = said.logits, said.label, said.classes
    right = metrics.correct(logits, label)
    recall = metrics.per_class_recall(logits, label)
    return {
        "model": model,
        "data": path,
        "split": split,
        "images": len(label),
        "accuracy": round(float(metrics.accuracy(logits, label)), 3),
        "interval": [round(bound, 2) for bound in proportion_interval(int(right.sum()), len(label))],
        "loss": round(float(metrics.negative_log_likelihood(logits, label)), 4),
        "calibration_error": round(float(metrics.expected_calibration_error(logits, label)), 2),
        "recall": {name: round(float(recall[i]), 2) for i, name in enumerate(classes) if np.isfinite(recall[i])},
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
    return data_stage.prepare(settings, manifest=sample, at_least=facts.own_size(model)).model(model, weights=weights)


def _shown(card: Card, manifest: Manifest) -> Data:
    with processes.main_first():
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


def predict(
    model: str, images: Sequence[Path], *, weights: str | Path | None, classes: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return for each image the class, its probability and the five best."""
    found = trained(model, weights=weights, classes=classes)
    missing = [str(image) for image in images if not image.is_file()]
    if missing:
        raise DataError(*(f"There is no image at {name}." for name in missing))
    return [_predict(found, image) for image in images]


def trained(model: str, *, weights: str | Path | None, classes: Sequence[str] | None = None) -> Model:
    """Return the model at a path, or a name with its weights; raise `ModelError` where it is neither."""
    found = find(model)
    if found is None:
        if weights is None:
            raise ModelError(f"{model} names no trained model. Add --weights FILE, or give a folder or an .onnx file.")
        return facts.from_weights(model, Path(weights), classes=classes)
    if classes is not None:
        progress.note("--classes is ignored: the model carries the names of its classes.")
    return found


def ask_image(model: Model, image: Path) -> np.ndarray:
    """Return the logits [K] of a model for an image file."""
    card = model.card
    pixels = one_image(image, size=card.crop, resize=card.resize, channels=card.channels)
    from potstill.data.augment import parse_policy
    from potstill.data.views import View

    shown = View(parse_policy("none"), size=card.crop, seed=0)(pixels, np.zeros(1, np.int64), np.full(1, CLEAN))
    if isinstance(model, torch.nn.Module):
        model.eval()
    with torch.inference_mode():
        return model(shown).logits.numpy()[0]


def _predict(model: Model, image: Path) -> dict[str, Any]:
    card, probability = model.card, metrics.softmax(ask_image(model, image)[None])[0]
    best = np.argsort(-probability, kind="stable")[:5]
    return {
        "image": str(image),
        "class": card.classes[best[0]],
        "probability": round(float(probability[best[0]]), 4),
        "top": [{"class": card.classes[i], "probability": round(float(probability[i]), 4)} for i in best],
    }

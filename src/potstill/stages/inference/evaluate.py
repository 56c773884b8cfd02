"""Evaluation of a trained model on a split of a data set."""

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
from potstill.model_files.open import Opened, find
from potstill.models import hub, input_facts
from potstill.models.card import Card
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig
from potstill.stages.run_folder import recorded_data
from potstill.stages.test_split import clean_logits, logits_of_originals, takes_photos


@dataclass(frozen=True)
class SplitLogits:
    """The logits of a model for a split, float32 [N, K], and the labels, int64 [N], indices into `classes` [K]."""

    logits: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]


def split_logits(
    model: str | Opened,
    path: str,
    *,
    split: str,
    limit: int | None,
    weights: str | Path | None = None,
    source: str = "",
    settings: dict[str, Any] | None = None,
) -> SplitLogits:
    """Return the float32 logits of a model for the labelled images of a split.

    model: a path, a name with weights, or an opened model from the folder or file `source`. Images that its run was
    trained with are split as in the run. Of others every labelled image is measured if they have no splits, so `split`
    is then "test" and means all. settings: other settings of the data.
    """
    if split not in SPLITS:
        raise ConfigError(f"There is no split '{split}'.{did_you_mean(split, SPLITS)} Splits: {', '.join(SPLITS)}.")
    opened = find(model) if isinstance(model, str) else model
    data_settings, own = _data_settings(model if isinstance(model, str) else source, path, settings or {})
    manifest = dataset.read(data_settings) if own else dataset.read_to_measure(data_settings)
    if limit:
        manifest = limited(manifest, limit, seed=data_settings.seed)
    if opened is None:
        opened = _named(str(model), weights, manifest, data_settings)
    manifest = manifest.select(manifest.rows(split, labelled=True))  # others are not decoded
    if not len(manifest):
        raise DataError(f"{path} has no labelled images in its {split} split. Choose another with --split.")
    rows = np.arange(len(manifest))
    label, classes = _labels(opened.card, manifest, rows)
    if takes_photos(opened):
        logits = logits_of_originals({"": opened}, manifest, rows)[""]
    else:
        logits = clean_logits(opened, _prepared(opened.card, manifest), rows)
    return SplitLogits(logits, label, classes)


def evaluate(
    model: str | Opened,
    path: str,
    *,
    weights: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    source: str = "",
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return accuracy in percent with its 95 % interval, recall per class, loss and calibration error.

    Arguments are those of `split_logits`.
    """
    result = split_logits(model, path, weights=weights, split=split, limit=limit, source=source, settings=settings)
    return {
        "model": model if isinstance(model, str) else source,
        "data": path,
        "split": split,
        **measured(result.logits, result.label, classes=result.classes),
    }


def _data_settings(model: str, path: str, settings: dict[str, Any]) -> tuple[DataConfig, bool]:
    """Return the settings of the data, and whether the run that made `model`, a folder or file, was trained on them."""
    place = Path(model)
    recorded = (recorded_data(place.parent if place.is_file() else place) if model else None) or {}
    own = "path" in recorded and Path(recorded["path"]).expanduser().resolve() == Path(path).expanduser().resolve()
    kept = {name: value for name, value in recorded.items() if name != "unlabelled"} if own else {}
    return config.build(DataConfig, {**kept, **settings, "path": path}), own


def _named(model: str, weights: str | Path | None, manifest: Manifest, settings: DataConfig) -> Opened:
    if weights is None:
        raise ModelError(
            f"{model} is the name of an architecture, not a trained model. Add its weights ({hub.FLAGS}), or give "
            "a run folder, a stage folder or an .onnx file."
        )
    sample = manifest.select(np.arange(min(len(manifest), 64)))  # enough to determine size and channels
    return dataset.prepare(settings, manifest=sample, at_least=input_facts.own_size(model)).model(
        model, weights=weights
    )


def _prepared(card: Card, manifest: Manifest) -> Data:
    with distributed.main_first():
        pixels = load_pixels(
            manifest, size=card.crop, resize=card.resize, channels=card.channels, fit=card.fit, keep_small=False
        )
    return Data(manifest, pixels, card.crop, card.resize, card.fit)


def _labels(card: Card, manifest: Manifest, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels in the order of the model's classes, matched by name."""
    unknown = [name for name in manifest.classes if name not in card.classes]
    if unknown:
        raise DataError(
            f"The data has classes that the model does not have: {', '.join(unknown[:5])}. Its classes: "
            f"{', '.join(card.classes[:8])}{', ...' if len(card.classes) > 8 else ''}. Rename the class folders."
        )
    position = np.array([card.classes.index(name) for name in manifest.classes])
    return position[manifest.label[rows]], card.classes

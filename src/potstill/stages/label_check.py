"""`potstill check --label-errors`: labels that look wrong, by a classifier that never saw the image it judges.

The probabilities are out of fold: five times, a logistic regression on four fifths of the images judges the others, on
features of a pretrained network for photos where one is installed, else on the pixels through a Nystroem map of an RBF
kernel. The estimate is that of `evaluation.label_errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import progress
from potstill.data.csv_files import write_csv
from potstill.data.draws import permutation
from potstill.data.manifest import SPLITS, Manifest
from potstill.data.splits import folds
from potstill.errors import DataError
from potstill.evaluation.label_errors import label_errors, suspicious
from potstill.evaluation.metrics import softmax
from potstill.stages import dataset
from potstill.stages.examples import COLUMNS
from potstill.stages.finetune.features import extract
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.logistic import Scaling, fit
from potstill.stages.recipe import DataConfig
from potstill.stages.shrink.candidates import bases, is_photo

FOLDS, PENALTY = 5, 0.01
MOST = 10_000  # images that are judged
SIDE, LANDMARKS = 16, 300  # pixels a side of small images; components of the kernel map
MEASURED = 64  # images whose size decides whether they are photos


def suspicious_labels(path: str, table: Path, *, group: str | None = None) -> dict[str, Any]:
    """Write a CSV of the labels that look wrong, the most suspicious first; return the estimates.

    The result has `table`, the `rows` (names of the images, in the order of the table), `all`, and by split what
    `evaluation.label_errors` returns. Raises `DataError` if a class has fewer than two labelled images.
    """
    manifest = dataset.read(DataConfig(path=path, group=group))
    own = _labelled(manifest)
    logits = _out_of_fold(_features(own, path), own)
    found = label_errors(logits, own.label)
    splits = {name: own.split == number for number, name in enumerate(SPLITS) if (own.split == number).any()}
    result: dict[str, Any] = {"table": str(table), "all": found, "rows": []}
    result["splits"] = {
        name: label_errors(logits[rows], own.label[rows]) for name, rows in splits.items() if rows.any()
    }
    if "suspicious" in found:
        probability = softmax(logits)
        places, looks = suspicious(probability, own.label)
        write_csv(table, COLUMNS, _rows(own, places, looks, probability))
        result["rows"] = [own.name(int(place)) for place in places]
    return result


def _labelled(manifest: Manifest) -> Manifest:
    """Return the labelled images of all splits, at most `MOST` of them."""
    rows = np.concatenate([manifest.rows(split, labelled=True) for split in SPLITS])
    if len(rows) > MOST:
        progress.note(f"Looking for wrong labels among {MOST:,} of {len(rows):,} images, drawn at random.")
        rows = rows[permutation(0, 0, len(rows), "labels")[:MOST]]
    return manifest.select(np.sort(rows))


def _features(manifest: Manifest, path: str) -> np.ndarray:
    """Return features float32 [N, D]."""
    some = np.linspace(0, len(manifest) - 1, min(len(manifest), MEASURED)).astype(int)
    side = int(np.median([min(manifest.image(int(row)).shape[:2]) for row in some]))
    found = bases(()) if is_photo(side) else []
    if found:
        images = Images(DataConfig(path=path, size=found[0].side), found[0].side, manifest=manifest)
        network = found[0].network(manifest.classes, found[0].side)
        network = network.with_card(images.shown.on(network.card))
        stored = extract(network, images, ("pooled",), views=0, augment="none", seed=0)
        return stored.of(np.arange(len(manifest)), "pooled")
    return _mapped(_pixels(manifest, path))


def _pixels(manifest: Manifest, path: str) -> np.ndarray:
    data = dataset.prepare(DataConfig(path=path), manifest=manifest, at_least=0)
    size = (min(SIDE, data.crop[0]), min(SIDE, data.crop[1]))
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(data.pixels.take(rows).float() / 255, size).flatten(1)
        for rows in np.array_split(np.arange(len(manifest)), max(1, len(manifest) // 256))
    ]
    return torch.cat(parts).numpy()


def _mapped(x: np.ndarray) -> np.ndarray:
    """Return the features of an RBF kernel whose width is that of the data."""
    from sklearn.kernel_approximation import Nystroem

    gamma = 1 / max(x.shape[1] * float(x.var()), 1e-9)
    mapped = Nystroem(gamma=gamma, n_components=min(LANDMARKS, len(x)), random_state=0).fit_transform(x)
    return np.asarray(mapped, np.float32)


def _out_of_fold(x: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Return logits float32 [N, K], each of a classifier that was not fitted on the image, its copies or its group."""
    count = np.bincount(manifest.label, minlength=len(manifest.classes))
    fewest = int(count[count > 0].min())
    if fewest < 2:
        name = manifest.classes[int(np.argmax(count == fewest))]
        raise DataError(f"'{name}' has only one labelled image, so its label cannot be judged. Add images of it.")
    parts = folds(manifest.with_split(np.zeros(len(manifest), np.uint8)), min(FOLDS, fewest), seed=0)
    logits = np.zeros((len(manifest), len(manifest.classes)), np.float32)
    with progress.task("Judging labels out of fold", total=len(parts)) as task:
        for part in parts:
            held, others = part.rows("validation"), part.rows("train")
            features = torch.from_numpy(x[others])
            scaling = Scaling.of(features)
            head = fit(scaling(features), torch.from_numpy(manifest.label[others]), len(manifest.classes), PENALTY)
            logits[held] = head(scaling(torch.from_numpy(x[held]))).numpy()
            task.advance()
    return logits


def _rows(manifest: Manifest, places: np.ndarray, looks: np.ndarray, probability: np.ndarray) -> Iterator[list[str]]:
    classes = manifest.classes
    for place, other in zip(places.tolist(), looks.tolist(), strict=True):
        recorded, confidence = classes[manifest.label[place]], f"{probability[place, other]:.4f}"
        yield [manifest.name(place), "", classes[other], confidence, recorded, SPLITS[manifest.split[place]]]

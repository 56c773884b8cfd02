"""Test images for the report, `examples.json`: mistakes, disagreements, soft labels, suspicious labels, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts
from potstill.data.csv_files import write_csv
from potstill.data.manifest import Manifest
from potstill.data.thumbnails import data_url, thumbnail
from potstill.errors import DataError
from potstill.evaluation import metrics
from potstill.evaluation.label_errors import TRUSTED, suspicious
from potstill.evaluation.metrics import softmax

FILE, TABLE = "examples.json", "suspicious-labels.csv"
SIDE = 96  # pixels of a thumbnail's longer side
SOFT, MISTAKES, DISAGREED, SUSPICIOUS, SAMPLED = 6, 24, 8, 12, 24  # images shown of each kind
TEMPERATURES = (1.0, 2.0, 4.0)
COLUMNS = ("path", "label", "predicted", "confidence", "recorded", "split")


@dataclass(frozen=True)
class Reference:
    """What the shipped file is compared with: the role of a model ("teacher", "original") and its logits [N, K]."""

    role: str
    logits: np.ndarray


def write_examples(
    folder: Path,
    manifest: Manifest,
    logits: np.ndarray,
    reference: Reference | None,
    temperatures: Sequence[float] = TEMPERATURES,
) -> None:
    """Write examples.json, and suspicious-labels.csv where labels look wrong, into a folder.

    logits: [N, K] of the shipped file for the labelled test images. reference: the teacher, or the model that it was
    made from.
    """
    shown = _Shown(manifest, manifest.rows("test", labelled=True), logits, reference)
    content: dict[str, Any] = {"classes": list(manifest.classes), "reference": reference and reference.role}
    content |= {
        "mistakes": shown.mistakes(),
        "suspicious": shown.suspicious(folder / TABLE),
        "samples": shown.samples(),
    }
    if reference is not None:
        content |= {
            "temperatures": list(temperatures),
            "soft": shown.soft(temperatures),
            "disagreed": shown.disagreed(),
        }
    artifacts.write_json(folder / FILE, content)


class _Shown:
    """The test images and what the shipped file and the reference predict for them."""

    def __init__(self, manifest: Manifest, rows: np.ndarray, logits: np.ndarray, reference: Reference | None) -> None:
        self.manifest, self.rows, self.label = manifest, rows, manifest.label[rows]
        self.own = softmax(logits)
        self.logits = {"student": logits} | ({"teacher": reference.logits} if reference else {})
        self.other = softmax(reference.logits) if reference else None

    def picture(self, place: int, row: int | None = None) -> dict[str, Any]:
        """Return name, label and thumbnail of a test image, or of the image of a row."""
        row = int(self.rows[place]) if row is None else row
        return {
            "image": thumbnail_of(self.manifest, row),
            "name": self.manifest.name(row),
            "label": int(self.manifest.label[row]),
        }

    def mistakes(self) -> list[dict[str, Any]]:
        """Return mistakes, those that the reference does not make first, the most confident first."""
        predicted, confidence = self.own.argmax(1), self.own.max(1)
        theirs = None if self.other is None else self.other.argmax(1)
        wrong = np.flatnonzero(predicted != self.label)
        shared = np.zeros(len(wrong)) if theirs is None else (theirs[wrong] != self.label[wrong])
        order = wrong[np.lexsort((-confidence[wrong], shared))][:MISTAKES]
        return [
            self.picture(int(n))
            | {"predicted": int(predicted[n]), "confidence": round(float(confidence[n]), 4)}
            | ({} if theirs is None else {"reference": int(theirs[n])})
            for n in order
        ]

    def disagreed(self) -> list[dict[str, Any]]:
        """Return the images on which the two differ most, by the total variation of their probabilities."""
        assert self.other is not None
        distance = 0.5 * np.abs(self.own - self.other).sum(1)
        order = np.argsort(-distance, kind="stable")[:DISAGREED]
        return [
            self.picture(int(n))
            | {"predicted": int(self.own[n].argmax()), "reference": int(self.other[n].argmax())}
            | {"distance": round(float(distance[n]), 4)}
            for n in order
        ]

    def soft(self, temperatures: Sequence[float]) -> list[dict[str, Any]]:
        """Return the probabilities of both at each temperature, of images whose second probability is high."""
        return [
            self.picture(n)
            | {
                role: [softmax(logits[[n]], value)[0].round(5).tolist() for value in temperatures]
                for role, logits in self.logits.items()
            }
            for n in undecided(self.logits["teacher"], SOFT)
        ]

    def suspicious(self, table: Path) -> list[dict[str, Any]]:
        """Return the images whose labels look most wrong; write them all as a table, to be corrected."""
        probability = self.own if self.other is None else self.other
        if metrics.accuracy(probability, self.label) < TRUSTED:
            return []
        places, looks = suspicious(probability, self.label)
        if len(places):
            write_csv(table, COLUMNS, (self._row(n, k, probability) for n, k in zip(places, looks, strict=True)))
        return [
            self.picture(int(n)) | {"looks": int(k), "confidence": round(float(probability[n, k]), 4)}
            for n, k in zip(places[:SUSPICIOUS], looks[:SUSPICIOUS], strict=True)
        ]

    def _row(self, place: int, looks: int, probability: np.ndarray) -> list[str]:
        classes = self.manifest.classes
        recorded, confidence = classes[self.label[place]], f"{probability[place, looks]:.4f}"
        return [self.manifest.name(int(self.rows[place])), "", classes[looks], confidence, recorded, "test"]

    def samples(self) -> list[dict[str, Any]]:
        """Return some training images, of as many classes as possible."""
        rows = self.manifest.rows("train", labelled=True)
        label = self.manifest.label[rows]
        turn = np.zeros(len(rows), np.int64)
        for number in np.unique(label):
            turn[label == number] = np.arange(int((label == number).sum()))
        first = np.lexsort((label, turn))[:SAMPLED]
        return [self.picture(0, int(row)) for row in rows[np.sort(first) if len(first) < SAMPLED else first]]


def undecided(logits: np.ndarray, count: int) -> list[int]:
    """Return images with a high second probability, each of another predicted class as long as there are any."""
    probability = np.sort(softmax(logits), 1)
    order = np.argsort(-probability[:, -2], kind="stable")
    chosen: list[int] = []
    seen: set[int] = set()
    for image in order:
        first = int(logits[image].argmax())
        if first not in seen:
            seen.add(first)
            chosen.append(int(image))
    return (chosen + [int(image) for image in order if int(image) not in chosen])[:count]


def thumbnail_of(manifest: Manifest, row: int) -> str:
    """Return an image as a data URL; empty if it cannot be read any more."""
    try:
        pixels = manifest.image(row)
    except DataError:
        return ""
    small = max(pixels.shape[:2]) <= SIDE
    image = thumbnail(pixels, SIDE)
    return data_url(image, "PNG") if small else data_url(image, "JPEG", quality=80)

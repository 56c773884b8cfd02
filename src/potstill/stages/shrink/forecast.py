"""The forecast: what the data, a teacher and the time at hand will bring, before hours are spent.

- Backbones: out-of-fold accuracy of a linear probe on the frozen features of each pretrained network.
- Learning curve: the same with a quarter, half and all of the labels; its power law (arXiv:1712.00409) tells what twice
  the labels would bring.
- Teacher: the difference of pilot students with and without it, which are short trainings of the first candidates.
- Student: an interval for the test accuracy of what will be shipped. At least that of the best pilot, at most that of
  the teacher, both with the error of their samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from potstill import words
from potstill.data.manifest import Manifest
from potstill.data.splits import folds as split_folds
from potstill.data.splits import separable, stratified
from potstill.evaluation.statistics import Verdict, compare, proportion_interval
from potstill.models.outputs import Classifier
from potstill.stages.finetune.features import Features, extract
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.logistic import Scaling, fit, in_threads, loss_of
from potstill.stages.recipe import DataConfig
from potstill.stages.shrink.candidates import Base
from potstill.words import plural

SAMPLED = 600  # training images of the probes
SHARES = (0.25, 0.5, 1.0)  # of the labels
FOLDS = 5
MOST = 0.9
PENALTY = 0.01
RESAMPLES = 1000
WIDE = 1.96


@dataclass(frozen=True)
class Backbone:
    """A probe on a layer of a pretrained network: out-of-fold accuracy in percent, its 95 % interval.

    correct: bool [S, N], for each of `SHARES` of the labels, which training images are classified correctly.
    """

    model: str
    layer: str
    accuracy: float
    interval: tuple[float, float]
    correct: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return it for the summary."""
        return {
            "model": self.model,
            "layer": self.layer,
            "accuracy": round(self.accuracy, 2),
            "interval": [round(bound, 2) for bound in self.interval],
            "images": self.correct.shape[1],
        }


def sample(manifest: Manifest) -> Manifest:
    """Return `SAMPLED` of the labelled training images, stratified, or all of them if there are fewer.

    Classes that have fewer images or groups there than there are folds are left out where the others are `MOST` of the
    images; else those with a single one, which cannot be both learned from and held out.
    """
    rows = manifest.rows("train", labelled=True)
    chosen = manifest.select(
        np.sort(stratified(manifest, rows, SAMPLED, 0, "forecast")) if len(rows) > SAMPLED else rows
    )
    apart = separable(chosen)
    common = np.isin(chosen.label, [k for k, count in apart.items() if count >= FOLDS])
    if common.mean() < MOST:
        common = np.isin(chosen.label, [k for k, count in apart.items() if count > 1])
    return chosen.select(np.flatnonzero(common))


@dataclass(frozen=True)
class Sampled:
    """Features of a sample of the training images, its manifest, and the network with a new head."""

    network: Classifier
    features: Features
    manifest: Manifest


def features_of(base: Base, config: DataConfig, layers: Sequence[str], side: int, manifest: Manifest) -> Sampled:
    """Return the features of a sample of the training images at an input size, without augmentation."""
    images = Images(config.model_copy(update={"size": side}), side, manifest=sample(manifest))
    classifier = base.network(images.manifest.classes, side)
    card = classifier.card.replace(resize=images.shown.resize, crop=images.shown.crop)
    classifier = classifier.with_card(card)
    stored = extract(classifier, images, layers, views=0, augment="none", seed=0)
    return Sampled(classifier, stored, images.manifest)


def parts(manifest: Manifest) -> list[np.ndarray]:
    """Return the rows of each fold of a sample: fewer than `FOLDS` folds if a class has fewer images or groups."""
    count = min(FOLDS, *separable(manifest).values())
    return [part.rows("validation") for part in split_folds(manifest, count, seed=0)]


def probed(model: str, sampled: Sampled, layer: str, shares: Sequence[float]) -> Backbone:
    """Return the probe of one layer, out of fold on the train split, with shares 0..1 of the other folds' labels."""
    features, manifest = sampled.features, sampled.manifest
    held = parts(manifest)
    correct = np.stack([_out_of_fold(features, manifest, layer, held, share) for share in shares])
    rate = 100 * float(correct[-1].mean())
    interval = proportion_interval(int(correct[-1].sum()), correct.shape[1])
    return Backbone(model, layer, rate, interval, correct)


def _out_of_fold(
    features: Features, manifest: Manifest, layer: str, parts: Sequence[np.ndarray], share: float
) -> np.ndarray:
    """Return which images of the parts, in their order, are classified correctly by probes on the others."""

    def held(number: int) -> np.ndarray:
        others = np.concatenate([part for other, part in enumerate(parts) if other != number])
        chosen = np.random.default_rng(number).permutation(others)[: max(round(share * len(others)), 2)]
        x = torch.from_numpy(features.of(chosen, layer))
        scaling = Scaling.of(x)
        head = fit(scaling(x), torch.from_numpy(manifest.label[chosen]), len(manifest.classes), PENALTY)
        tested = scaling(torch.from_numpy(features.of(parts[number], layer)))
        return loss_of(head, tested, torch.from_numpy(manifest.label[parts[number]]))[1].astype(bool)

    return np.concatenate(in_threads(held, len(parts)))


def probe_sentence(probes: Sequence[Backbone]) -> str:
    """Return the accuracy of each pretrained network in one sentence."""
    each = "; ".join(
        f"{one.model} {words.percent(one.accuracy)} ({one.interval[0]:.1f} to {one.interval[1]:.1f})" for one in probes
    )
    images = plural(probes[0].correct.shape[1], "training image")
    return f"Probes on pretrained features, cross-validated on {images}: {each}."


@dataclass(frozen=True)
class Curve:
    """Accuracy in percent at each number of labels; expected with all labels, and with twice as many.

    labels: at most those of the sample. total: all labels. interval: 95 % for `doubled`; that of the gain on the same
    images, so it does not have the error of their sample twice.
    """

    labels: tuple[int, ...]
    accuracy: tuple[float, ...]
    total: int
    now: float
    doubled: float
    interval: tuple[float, float]
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return it for the summary."""
        return {
            "labels": list(self.labels),
            "accuracy": [round(value, 2) for value in self.accuracy],
            "total": self.total,
            "now": round(self.now, 2),
            "doubled": round(self.doubled, 2),
            "interval": [round(bound, 2) for bound in self.interval],
            "source": self.source,
        }

    @property
    def sentence(self) -> str:
        """What more labels would bring."""
        gain, (low, high) = self.doubled - self.now, (bound - self.now for bound in self.interval)
        return (
            f"Twice the labels ({words.count(2 * self.total)}) would bring about {words.signed(gain)} points "
            f"(95 % interval {words.signed(low)} to {words.signed(high)}; {self.source})."
        )


def learning_curve(labels: Sequence[int], correct: np.ndarray, total: int, source: str) -> Curve:
    """Return the learning curve from bool [S, N]: images classified correctly with each number of labels.

    total: all labels there are, of which `labels` may be those of a sample.
    """
    rates = 100 * correct.mean(axis=1)
    random = np.random.default_rng(0)
    rows = random.integers(0, correct.shape[1], size=(RESAMPLES, correct.shape[1]))
    errors = [1 - correct[:, each].mean(axis=1) for each in rows]
    error = 1 - correct.mean(axis=1)
    now, doubled = _expected(labels, error, total), _expected(labels, error, 2 * total)
    gains = [_expected(labels, each, 2 * total) - _expected(labels, each, total) for each in errors]
    low, high = (now + np.quantile(gains, [0.025, 0.975])).tolist()
    span = (min(low, doubled), max(high, doubled))
    return Curve(tuple(labels), tuple(rates.tolist()), total, now, doubled, span, source)


def _expected(labels: Sequence[int], error: np.ndarray, count: int) -> float:
    """Return the accuracy in percent with so many labels, by a power law that does not rise."""
    x, y = np.log(np.asarray(labels, float)), np.log(np.clip(error, 1e-4, 1))
    slope = min(np.polyfit(x, y, 1)[0], 0.0)
    return 100 * (1 - float(np.exp(y[-1] + slope * np.log(count / labels[-1]))))


def teacher_gain(students: np.ndarray, controls: np.ndarray) -> Verdict:
    """Return the comparison of pilots with and without a teacher: bool [P, N], pairs of the same network."""
    return compare(students, controls, names=("a pilot with the teacher", "the pilot without it"))


def gain_sentence(gain: Verdict) -> str:
    """Return whether a teacher is expected to help."""
    low, high = gain.interval
    pilots = f"{plural(gain.seeds, 'pilot')}, {plural(gain.images, 'validation image')}"
    span = f"{words.signed(gain.difference)} points, 95 % interval {words.signed(low)} to {words.signed(high)}"
    if low > 0:
        return f"A teacher helps: short trainings gain {span} ({pilots})."
    if high < 0:
        return f"A teacher harms in short trainings: {span} ({pilots})."
    return f"Whether a teacher helps is open: short trainings gain {span} ({pilots})."


@dataclass(frozen=True)
class Expected:
    """The forecast of the test accuracy of what is shipped, in percent."""

    accuracy: float
    interval: tuple[float, float]

    def holds(self, outcome: float) -> bool:
        """Whether an outcome lies in the interval."""
        return self.interval[0] <= outcome <= self.interval[1]

    def to_json(self) -> dict[str, Any]:
        """Return it for the summary."""
        return {"accuracy": round(self.accuracy, 2), "interval": [round(bound, 2) for bound in self.interval]}


def expected(pilot: float, teacher: float, *, validation: int, test: int) -> Expected:
    """Return the forecast from the best pilot's and the teacher's validation accuracy, in percent.

    A full training closes some of the distance from a short one to the teacher: half of it is expected, and none or
    all of it are the ends, widened by the error of both samples of images.
    """
    top = max(pilot, teacher)
    low, high = pilot - _error(pilot, validation, test), top + _error(top, validation, test)
    return Expected((pilot + top) / 2, (max(low, 0.0), min(high, 100.0)))


def _error(accuracy: float, validation: int, test: int) -> float:
    """Return the 95 % half-width, in points, between the accuracies of one model on two samples of images."""
    share = min(max(accuracy / 100, 0.5 / validation), 1 - 0.5 / validation)
    return 100 * WIDE * float(np.sqrt(share * (1 - share) * (1 / validation + 1 / test)))

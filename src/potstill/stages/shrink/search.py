"""Successive halving over the candidates (arXiv:1502.07943), on validation accuracy with the bits of the shipped file.

Rung 0 trains many candidates for a quarter of their epochs, rung 1 the best of them to the end, as the first seed of
the proof. The epochs of a candidate are those that the proof has time for, so a larger network gets fewer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from potstill import artifacts
from potstill.evaluation.statistics import Verdict
from potstill.stages.recipe import ExportConfig, ObjectiveConfig, Recipe, TeacherConfig
from potstill.stages.run_folder import record_name
from potstill.stages.shrink.candidates import Candidate, is_photo
from potstill.stages.shrink.costs import Costed
from potstill.stages.shrink.forecast import teacher_gain
from potstill.stages.shrink.jobs import Job, Outcome, Workers, prepared
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.shrink.speed import tier
from potstill.stages.shrink.trials import Trials
from potstill.training.settings import TrainConfig

SHORT = 4  # a training of rung 0 has one in so many of the epochs
PILOTS = 2  # candidates of rung 0 that are trained without the teacher too
LONGEST = {"pretrained": 16, "scratch": 64}
VIEWS = {"photo": 4, "small": 16}


@dataclass(frozen=True)
class Place:
    """Where the trainings of a search lie, and what they share."""

    config: ShrinkConfig
    folder: Path
    look: Look
    teacher: Path

    @property
    def stores(self) -> Path:
        """The folder of the teacher's logits."""
        return self.folder / "stores"

    def recipe(self, candidate: Candidate, epochs: int) -> Recipe:
        """Return the recipe of a candidate: a run of the proof, or a short one of the search."""
        photo = is_photo(self.look.side)
        data = self.config.data.model_copy(update={"size": candidate.size} if candidate.size else {})
        return Recipe(
            name=candidate.network,
            data=data,
            teacher=TeacherConfig(model=str(self.teacher)),
            student=candidate.student,
            objective=ObjectiveConfig(alpha=0.3, temperature=2.0) if photo else ObjectiveConfig(),
            train=settings(candidate, epochs, len(self.look.manifest.rows("train"))),
            views=min(VIEWS["photo" if photo else "small"], epochs),
            seeds=self.config.seeds,
            seed=self.config.seed,
            export=ExportConfig(calibration=256),
        )

    def run(self, candidate: Candidate, epochs: int) -> Path:
        """Return the folder of the full run of a candidate."""
        return self.folder / "models" / f"{candidate.network}-{epochs}-epochs"

    def job(self, candidate: Candidate, epochs: int, *, full: bool, bits: Sequence[int], kind: str = "student") -> Job:
        """Return the training of the first seed of a candidate."""
        recipe = self.recipe(candidate, epochs)
        folder = self.run(candidate, epochs) if full else self.folder / "search" / f"{candidate.network}-{epochs}"
        if full and not (folder / record_name("distill")).is_file():
            text = yaml.safe_dump(recipe.to_json(), sort_keys=False, allow_unicode=True)
            artifacts.write_text(folder / record_name("distill"), text)
        return Job(
            json.dumps(recipe.to_json()), str(folder), str(self.stores), kind, self.config.seed, tuple(sorted(bits))
        )


def settings(candidate: Candidate, epochs: int, images: int) -> TrainConfig:
    """Return how a candidate is trained. images: of the train split.

    fp32 without compilation: which plan is fastest is measured, and the noise of that would change the choice.
    """
    common = {"epochs": epochs, "precision": "fp32", "compile": False}
    if candidate.weights:
        return TrainConfig(**common, batch_size=32, lr=0.0005, warmup=0.1, clip=1.0, weight_decay=0.02)
    return TrainConfig(**common, batch_size=32 if images < 4000 else 64, lr=0.004, warmup=0.1, weight_decay=0.01)


@dataclass(frozen=True)
class Entry:
    """A candidate with its cost and the epochs of its full training."""

    costed: Costed
    epochs: int

    @property
    def candidate(self) -> Candidate:
        """The candidate."""
        return self.costed.candidate

    @property
    def short(self) -> int:
        """The epochs of its training in rung 0."""
        return max(tier(self.epochs / SHORT), 1)


def cap(candidate: Candidate) -> int:
    """Return the epochs after which more bring little."""
    return LONGEST["pretrained" if candidate.weights else "scratch"]


@dataclass
class Found:
    """The results of a search: outcomes by network of rung 0 and 1, and the pilots' comparison."""

    short: dict[str, Outcome]
    full: dict[str, Outcome]
    gain: Verdict | None = None

    def accuracy(self, candidate: Candidate) -> float:
        """Return the best known validation accuracy of a candidate with its bits, in percent."""
        outcome = self.full.get(candidate.network) or self.short[candidate.network]
        return outcome.accuracy[candidate.bits]

    def correct(self, candidate: Candidate) -> np.ndarray:
        """Return which validation images it classifies correctly, bool [N]."""
        return (self.full.get(candidate.network) or self.short[candidate.network]).correct[candidate.bits]


def pilots(place: Place, entries: Sequence[Entry], workers: Workers, trials: Trials) -> Found:
    """Train rung 0: every candidate with the teacher, the first ones without it too."""
    bits = _bits(entries)
    unique = list({entry.candidate.network: entry for entry in entries}.values())
    for entry in unique:  # the teacher's logits are computed here, before several workers would
        _fill(place, entry)
    jobs = [place.job(e.candidate, e.short, full=False, bits=bits[e.candidate.network]) for e in unique]
    bare = [
        place.job(e.candidate, e.short, full=False, bits=bits[e.candidate.network], kind="control")
        for e in unique[:PILOTS]
    ]
    outcomes = workers.all([*jobs, *bare], "Training candidates briefly")
    short = {e.candidate.network: outcome for e, outcome in zip(unique, outcomes, strict=False)}
    controls = outcomes[len(jobs) :]
    for entry in entries:
        outcome = short[entry.candidate.network]
        trials.report(entry.costed, 0, outcome.accuracy[entry.candidate.bits], epochs=entry.short)
    students = [short[e.candidate.network].correct[32] for e in unique[:PILOTS]]
    gain = teacher_gain(np.stack(students), np.stack([one.correct[32] for one in controls]))
    return Found(short, {}, gain)


def _bits(entries: Sequence[Entry]) -> dict[str, set[int]]:
    result: dict[str, set[int]] = {}
    for entry in entries:
        result.setdefault(entry.candidate.network, set()).add(entry.candidate.bits)
    return result


def _fill(place: Place, entry: Entry) -> None:
    for epochs in {entry.short, entry.epochs}:
        recipe = place.recipe(entry.candidate, epochs)
        data, teacher = prepared(recipe, place.stores)
        from potstill.stages.distill.train import trainings

        trainings(recipe, data, teacher, place.folder / "search" / "none", place.stores).teacher.function()


def finalists(
    place: Place, entries: Sequence[Entry], chosen: Sequence[Entry], found: Found, workers: Workers, trials: Trials
) -> Found:
    """Train the chosen candidates to the end; the others are pruned."""
    bits = _bits(entries)
    unique = list({entry.candidate.network: entry for entry in chosen}.values())
    jobs = [place.job(e.candidate, e.epochs, full=True, bits=bits[e.candidate.network]) for e in unique]
    outcomes = workers.all(jobs, "Training the best candidates to the end")
    full = {e.candidate.network: outcome for e, outcome in zip(unique, outcomes, strict=True)}
    result = Found(found.short, full, found.gain)
    ended = [entry for entry in entries if entry.candidate.network in full]
    for entry in ended:
        trials.report(entry.costed, 1, result.accuracy(entry.candidate), epochs=entry.epochs)
    accuracies = {entry.candidate.name: result.accuracy(entry.candidate) for entry in entries}
    trials.finish(accuracies, {entry.candidate.name for entry in ended})
    return result

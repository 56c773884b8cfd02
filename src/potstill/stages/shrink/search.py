"""Successive halving over the candidates (arXiv:1502.07943), on validation accuracy with the bits of the shipped file.

Rung 0 trains many candidates for a quarter of their epochs, rung 1 the best of them to the end, as the first seed of
the proof. The epochs of a candidate are those that the proof has time for, so a larger network gets fewer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from potstill import artifacts
from potstill.evaluation.statistics import Verdict
from potstill.scheduling import Scheduler, carried_out
from potstill.stages.distill.train import trainings
from potstill.stages.recipe import ExportConfig, ObjectiveConfig, Recipe, StudentConfig, TeacherConfig
from potstill.stages.run_folder import record_name
from potstill.stages.shrink import starts
from potstill.stages.shrink.candidates import Candidate, is_photo
from potstill.stages.shrink.costs import Costed
from potstill.stages.shrink.forecast import teacher_gain
from potstill.stages.shrink.jobs import Job, Kind, Outcome, prepared
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.shrink.speed import tier
from potstill.stages.shrink.teacher import batch_size
from potstill.stages.shrink.trials import Trials
from potstill.training.settings import TrainConfig

SHORT = 4  # a training of rung 0 has one in so many of the epochs
PILOTS = 2  # candidates of rung 0 that are trained without the teacher too
LONGEST = {"pretrained": 16, "scratch": 64}


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
        return short_of(self.epochs)


def short_of(epochs: int) -> int:
    """Return the epochs in rung 0 of a candidate whose full training has `epochs`."""
    return max(tier(epochs / SHORT), 1)


@dataclass(frozen=True)
class Place:
    """Where the trainings of a search lie, and what they share. views: cached of each training image."""

    config: ShrinkConfig
    folder: Path
    look: Look
    teacher: Path
    views: int

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
            student=self.student(candidate),
            objective=ObjectiveConfig(alpha=0.3, temperature=2.0) if photo else ObjectiveConfig(),
            train=settings(candidate, epochs, len(self.look.manifest.rows("train"))),
            views=self.views,
            seeds=self.config.seeds,
            seed=self.config.seed,
            export=ExportConfig(int8=False),  # the file that is shipped is written and measured at the end
        )

    def student(self, candidate: Candidate) -> StudentConfig:
        """Return the student's part of a recipe: the network to start from, or a name."""
        start = starts.place_of(self.folder, candidate)
        return StudentConfig(model=str(start)) if candidate.weights else candidate.student

    def run(self, candidate: Candidate, epochs: int) -> Path:
        """Return the folder of the full run of a candidate."""
        return self.folder / "models" / f"{candidate.network}-{epochs}-epochs"

    def job(self, entry: Entry, epochs: int, *, full: bool, bits: Collection[int], kind: Kind) -> Job:
        """Return the training of the first seed of a candidate: brief, or as a part of its full run."""
        candidate = entry.candidate
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

    fp32 without compilation, photos in channels_last (1.5 times as fast for depthwise networks): which plan is fastest
    would otherwise be measured, and the noise of that would change the choice.
    """
    common = {"epochs": epochs, "precision": "fp32", "compile": False, "channels_last": candidate.size is not None}
    if candidate.weights:
        more = {"warmup": 0.1, "clip": 1.0, "weight_decay": 0.02, "batchnorm": "fixed"}
        return TrainConfig(**common, batch_size=32, lr=0.0001, **more)
    return TrainConfig(**common, batch_size=batch_size(images), lr=0.004, warmup=0.1, weight_decay=0.01)


def cap(candidate: Candidate) -> int:
    """Return the epochs after which more bring little."""
    return LONGEST["pretrained" if candidate.weights else "scratch"]


@dataclass(frozen=True)
class Found:
    """The results of a search: outcomes by network of rung 0 and 1, and the pilots' comparison.

    kind: "student" if candidates are trained with the teacher, "control" if the pilots were worse with it.
    """

    short: dict[str, Outcome]
    full: dict[str, Outcome]
    gain: Verdict
    kind: Kind

    def of(self, candidate: Candidate) -> Outcome:
        """Return the longest training of a candidate."""
        return self.full.get(candidate.network) or self.short[candidate.network]

    def accuracy(self, costed: Costed) -> float:
        """Return the validation accuracy of a candidate with its bits, in percent.

        Simulated with plain rounding. Where that loses more than `Costed.lost`, it is the float accuracy less that,
        because weights that are shipped are reconstructed or trained for their bits.
        """
        accuracy = self.of(costed.candidate).accuracy
        return max(accuracy[costed.candidate.bits], accuracy[32] - costed.lost)

    def correct(self, costed: Costed) -> np.ndarray:
        """Return which validation images it classifies correctly, bool [N]."""
        outcome, bits = self.of(costed.candidate), costed.candidate.bits
        return outcome.correct[bits if outcome.accuracy[bits] >= outcome.accuracy[32] - costed.lost else 32]


def pilots(place: Place, entries: Sequence[Entry], scheduler: Scheduler) -> Found:
    """Train the first candidates briefly, with the teacher and without it."""
    first = _networks(entries)[:PILOTS]
    fill(place, first)
    bits = _bits(entries)
    kinds: tuple[Kind, Kind] = ("student", "control")
    jobs = [
        place.job(e, e.short, full=False, bits=bits[e.candidate.network], kind=kind) for kind in kinds for e in first
    ]
    outcomes = carried_out(scheduler, jobs, "Training pilots with and without the teacher")
    students, controls = outcomes[: len(first)], outcomes[len(first) :]
    right = [np.stack([one.correct[32] for one in group]) for group in (students, controls)]
    kind: Kind = "control" if _harms(*right) else "student"
    chosen = students if kind == "student" else controls
    short = {e.candidate.network: one for e, one in zip(first, chosen, strict=True)}
    return Found(short, {}, teacher_gain(*right), kind)


def _harms(students: np.ndarray, controls: np.ndarray) -> bool:
    """Whether the pilots, bool [P, N], are worse with the teacher by more than two standard errors over the images."""
    delta = (students.astype(float) - controls).mean(axis=0)
    return delta.mean() < -2 * delta.std() / np.sqrt(len(delta))


def rung(place: Place, entries: Sequence[Entry], found: Found, scheduler: Scheduler, trials: Trials) -> Found:
    """Train the other candidates briefly, as the pilots' comparison says."""
    rest = [e for e in _networks(entries) if e.candidate.network not in found.short]
    if found.kind == "student":
        fill(place, rest)
    bits = _bits(entries)
    jobs = [place.job(e, e.short, full=False, bits=bits[e.candidate.network], kind=found.kind) for e in rest]
    outcomes = carried_out(scheduler, jobs, "Training candidates briefly") if jobs else []
    short = found.short | {e.candidate.network: one for e, one in zip(rest, outcomes, strict=True)}
    for entry in entries:
        trials.report(entry.costed, 0, short[entry.candidate.network].accuracy[entry.candidate.bits])
    return replace(found, short=short)


def _networks(entries: Sequence[Entry]) -> list[Entry]:
    """Return one entry of each network, in order: candidates that differ only in bits share a training."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.candidate.network, entry)
    return list(first.values())


def _bits(entries: Sequence[Entry]) -> dict[str, set[int]]:
    result: dict[str, set[int]] = {}
    for entry in entries:
        result.setdefault(entry.candidate.network, set()).add(entry.candidate.bits)
    return result


def fill(place: Place, entries: Sequence[Entry]) -> None:
    """Compute the teacher's logits for the input sizes of candidates, before several workers would."""
    for entry in {e.candidate.size: e for e in entries}.values():
        recipe = place.recipe(entry.candidate, entry.short)
        data, teacher = prepared(recipe, place.stores)
        trainings(recipe, data, teacher, place.folder / "search", place.stores).teacher.function()


def finalists(
    place: Place, entries: Sequence[Entry], chosen: Sequence[Entry], found: Found, scheduler: Scheduler, trials: Trials
) -> Found:
    """Train the chosen candidates to the end; the others are pruned."""
    bits, unique = _bits(entries), _networks(chosen)
    jobs = [place.job(e, e.epochs, full=True, bits=bits[e.candidate.network], kind=found.kind) for e in unique]
    outcomes = carried_out(scheduler, jobs, "Training the best candidates to the end")
    full = {e.candidate.network: outcome for e, outcome in zip(unique, outcomes, strict=True)}
    result = replace(found, full=full)
    ended = [entry for entry in entries if entry.candidate.network in full]
    for entry in ended:
        trials.report(entry.costed, 1, result.accuracy(entry.costed))
    accuracies = {entry.candidate.name: result.accuracy(entry.costed) for entry in entries}
    trials.finish(accuracies, {entry.candidate.name for entry in ended})
    return result

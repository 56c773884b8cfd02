"""The plan: which candidates are trained, and for how long, so that everything ends within the minutes given.

It is made once, from measured speeds, and recorded: a command that is started again follows the recorded plan, so that
it ends with the same choice.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.errors import ConfigError
from potstill.stages.shrink import teacher
from potstill.stages.shrink.candidates import Candidate
from potstill.stages.shrink.costs import Costs
from potstill.stages.shrink.search import PILOTS, cap, short_of
from potstill.stages.shrink.settings import Budgets
from potstill.stages.shrink.speed import Speeds, tier
from potstill.words import plural

SEARCH, PROOF = 0.32, 0.48  # shares of the time that is left once the teacher is made
VIEWS = {"photo": 12, "photo, quick": 8, "small": 8}  # cached of each training image
LONG = 2400.0  # seconds
MOST_SIZES = 2  # input sizes of photos, because the teacher's logits are computed for each
MOST = 24  # candidates in rung 0
FEWEST_EPOCHS = 2
PATIENCE = 6  # candidates that are passed over before the list is closed
MOST_FINALISTS = 4
ROUNDED = 7000  # images that the reconstruction of a network for photos takes as long as training on
MOST_MINUTES = 1 << 14
OVERHEAD = {"photo": 20.0, "small": 6.0}  # seconds around a training: loading, calibration, validation


class Clock:
    """Seconds spent on one goal, over interrupted calls; recorded in a file."""

    def __init__(self, file: Path) -> None:
        self._file, self._began = file, time.monotonic()
        self._before: float = artifacts.read_json(file)["seconds"] if file.is_file() else 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._began

    def save(self) -> None:
        """Record the seconds so far."""
        artifacts.write_json(self._file, {"seconds": round(self.seconds, 1)})


@dataclass(frozen=True)
class Plan:
    """epochs: of the full training of each candidate, by name. short: the names of rung 0. finalists: how many are
    trained to the end. views: cached of each image. seconds: that search and proof should take."""

    epochs: dict[str, int]
    short: tuple[str, ...]
    finalists: int
    views: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it for its file."""
        return {
            "epochs": self.epochs,
            "short": list(self.short),
            "finalists": self.finalists,
            "views": self.views,
            "seconds": round(self.seconds, 1),
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Plan:
        """Return the plan of a file."""
        return cls(**{**written, "short": tuple(written["short"])})


@dataclass(frozen=True)
class Time:
    """What a plan divides. seconds: left for search and proof; images: of the train split; workers, seeds: counts;
    answer: seconds in which the teacher answers one image; overhead: around a training, where there are minutes;
    allowed: minutes of the whole command, of which `seconds` are left."""

    seconds: float
    images: int
    workers: int
    seeds: int
    answer: float = 0.0
    overhead: float = 0.0
    allowed: float = 0.0

    @property
    def around(self) -> float:
        """The seconds around a training."""
        return self.overhead * min(self.seconds / 600, 1)

    def training(self, epochs: int, speed: float) -> float:
        """Return the wall seconds of a training in one worker; speed: seconds an image."""
        return epochs * self.images * speed + self.around

    def turns(self, trainings: int) -> int:
        """Return how often all workers are busy with so many trainings."""
        return -(-trainings // self.workers)


def epochs_of(one: Candidate, speed: float, limit: Time) -> int:
    """Return the epochs that the proof has time for: students and controls of all seeds; 0 if not even one."""
    proof = PROOF * limit.seconds / limit.turns(2 * limit.seeds)
    return min(tier((proof - limit.around) / (limit.images * speed)), cap(one))


def made(
    ordered: Sequence[Candidate], costs: Costs, speeds: Speeds, limit: Time, budgets: Budgets, *, photo: bool
) -> Plan:
    """Return the plan for candidates in the order of their promise; those that break a budget are left out.

    Raises `ConfigError` if the time is too short for any of them, with the shortest that works.
    """
    limit = replace(limit, overhead=OVERHEAD["photo" if photo else "small"])
    found = _within(ordered, costs, speeds, limit, budgets, photo=photo)
    if found is None:
        raise ConfigError(_too_short(ordered, costs, speeds, limit, photo=photo))
    return found


def _within(
    ordered: Sequence[Candidate], costs: Costs, speeds: Speeds, limit: Time, budgets: Budgets, *, photo: bool
) -> Plan | None:
    """Return the plan, or None if the time is too short for any candidate."""
    first = next((each for each in _fitting(ordered, costs, speeds, limit, budgets)), None)
    if first is None:
        return None
    most = VIEWS["small"] if not photo else VIEWS["photo"] if limit.seconds > LONG else VIEWS["photo, quick"]
    views = min(most, max(epochs_of(*first, limit), 1)) if photo else most
    answers = views * limit.images * limit.answer
    rounding = ROUNDED * first[1] / limit.workers if photo else 0.0
    limit = replace(limit, seconds=limit.seconds - answers - rounding)
    epochs, spent = _brief(_fitting(ordered, costs, speeds, limit, budgets), limit, answers)
    if not epochs:
        return None
    longest = max(limit.training(epochs[one.name], speeds.of(one)) for one in ordered if one.name in epochs)
    turns = max(int((SEARCH * limit.seconds - spent) / longest), 1)
    return Plan(epochs, tuple(epochs), min(turns * limit.workers, MOST_FINALISTS), views, limit.seconds)


def _fitting(
    ordered: Sequence[Candidate], costs: Costs, speeds: Speeds, limit: Time, budgets: Budgets
) -> Iterator[tuple[Candidate, float]]:
    """Yield the candidates within the budgets that there is time for, and the seconds of one image.

    It ends after `PATIENCE` others that follow the first one.
    """
    found, passed = False, 0
    for one in ordered:
        speed = speeds.of(one)
        if epochs_of(one, speed, limit) >= FEWEST_EPOCHS and not costs.of(one).excess(budgets):
            found = True
            yield one, speed
        elif found:
            passed += 1
            if passed >= PATIENCE:
                return


def _brief(fitting: Iterable[tuple[Candidate, float]], limit: Time, answers: float) -> tuple[dict[str, int], float]:
    """Return the candidates of rung 0 with the epochs of their full training, and the wall seconds of rung 0.

    answers: seconds in which the teacher answers all views at one more input size.
    """
    epochs: dict[str, int] = {}
    networks: set[str] = set()
    sizes: set[int | None] = set()
    spent, halves, skipped = 0.0, SEARCH * limit.seconds / 2, 0
    for one, speed in fitting:
        number = epochs_of(one, speed, limit)
        more = answers if sizes and one.size not in sizes else 0.0
        trainings = 2 if len(networks) < PILOTS else 1
        training = trainings * limit.training(short_of(number), speed) / limit.workers
        cost = 0.0 if one.network in networks else more + training
        if epochs and (spent + cost > halves or (one.size not in sizes and len(sizes) >= MOST_SIZES)):
            skipped += 1
            if skipped >= PATIENCE:
                break
            continue
        spent, skipped = spent + cost, 0
        networks.add(one.network)
        sizes.add(one.size)
        epochs[one.name] = number
        if spent >= halves or len(epochs) >= MOST:
            break
    return epochs, spent


def _too_short(ordered: Sequence[Candidate], costs: Costs, speeds: Speeds, limit: Time, *, photo: bool) -> str:
    """Return the error, with the fewest whole minutes in which the quickest candidate has a plan."""
    quickest = min(ordered, key=speeds.of)

    def enough(more: int) -> bool:
        seconds = limit.seconds + 60 * more * (1 - teacher.SHARE)  # a teacher that is trained here takes its share
        return _within([quickest], costs, speeds, replace(limit, seconds=seconds), Budgets(), photo=photo) is not None

    more = bisect.bisect_left(range(MOST_MINUTES), True, key=enough)
    needs = (
        f"needs about --minutes {math.ceil(limit.allowed + more)}. Allow that, use"
        if more < MOST_MINUTES
        else "never ends. Use"
    )
    fewer = ", or fewer seeds (--seeds 1)" if limit.seeds > 1 else ""
    return (
        f"--minutes is too short: training the quickest candidate, {FEWEST_EPOCHS} epochs with "
        f"{plural(limit.seeds, 'seed')} and as many controls, {needs} fewer images (--limit){fewer}."
    )

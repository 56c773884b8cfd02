"""What to ship: which of several files to use, and whether it is good enough. The one rule for all stages and pages.

A file counts if it is not measurably less accurate than the first one (McNemar, p < 0.05) and keeps the limits. Of
these the fastest is recommended, or the smallest: so a file that is slower *and* larger than another never is. What is
slower but smaller is described as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from potstill import words

Preference = Literal["speed", "bytes"]
WORSE = 0.05
"""p value (McNemar) below which a file counts as less accurate than the first."""


@dataclass(frozen=True)
class Candidate:
    """A file. latency_ms: of one image on one thread, None where unknown. lost, p: accuracy against the first file."""

    name: str
    bytes: int
    latency_ms: float | None = None
    lost: float = 0.0
    p: float = 1.0

    @property
    def is_worse(self) -> bool:
        """Whether it is measurably less accurate than the first file."""
        return self.lost > 0 and self.p < WORSE

    @property
    def milliseconds(self) -> float:
        """The latency; infinite where unknown."""
        return math.inf if self.latency_ms is None else self.latency_ms


@dataclass(frozen=True)
class Goal:
    """What the user asked for: percent, points below the teacher, bytes, milliseconds. None: not asked for."""

    min_accuracy: float | None = None
    max_drop: float | None = None
    max_bytes: float | None = None
    max_latency: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())

    def keeps(self, file: Candidate) -> bool:
        """Return whether a file keeps the limits of size and time."""
        small = self.max_bytes is None or file.bytes <= self.max_bytes
        return small and (self.max_latency is None or file.milliseconds <= self.max_latency)

    def judged(self, figures: Mapping[str, Any], teacher: float | None) -> dict[str, Any] | None:
        """Return what was asked for, whether it is `met`, and a sentence for each part that is `missed`; None without.

        figures: accuracy (percent), bytes and latency_ms of the file. teacher: its accuracy in percent.
        """
        if not self:
            return None
        asked = {name: value for name, value in asdict(self).items() if value is not None}
        least = self.least(teacher)
        missed = []
        if least is not None and figures["accuracy"] < least:
            missed.append(f"accuracy {words.percent(figures['accuracy'])} instead of {words.percent(least)}")
        for name, key, shown in (("max_bytes", "bytes", words.size), ("max_latency", "latency_ms", words.milliseconds)):
            value = figures.get(key)
            if name in asked and (value is None or value > asked[name]):
                missed.append(f"{'unknown' if value is None else shown(value)} instead of {shown(asked[name])}")
        return asked | {"accuracy": least and round(least, 2), "met": not missed, "missed": missed}

    def least(self, teacher: float | None) -> float | None:
        """Return the accuracy to be reached, in percent; None if none was asked for."""
        drop = None if self.max_drop is None or teacher is None else teacher - self.max_drop
        given = [one for one in (self.min_accuracy, drop) if one is not None]
        return max(given) if given else None


def recommended(files: Sequence[Candidate], prefer: Preference = "speed", goal: Goal | None = None) -> dict[str, Any]:
    """Return `file`, the reason `because`, and by name what to know of each of the `others`.

    files: the first is the float one, with which the others are compared.
    """
    first, *others = files
    accurate = [first, *(file for file in others if not file.is_worse)]
    usable = [file for file in accurate if goal is None or goal.keeps(file)] or accurate
    by_time, by_size = (lambda f: (f.milliseconds, f.bytes)), (lambda f: (f.bytes, f.milliseconds))
    chosen = min(usable, key=by_time if prefer == "speed" else by_size)
    return {
        "file": chosen.name,
        "because": _because(chosen, first, accurate, usable, prefer),
        "others": {file.name: against(file, chosen) for file in files if file is not chosen},
    }


def _because(
    chosen: Candidate, first: Candidate, accurate: list[Candidate], usable: list[Candidate], prefer: Preference
) -> str:
    if len(usable) < len(accurate):
        return "it keeps the limits, and is not measurably less accurate"
    better = "faster" if prefer == "speed" else "smaller"
    if chosen is first:
        return f"no other file is {better} without being measurably less accurate"
    gain = (
        f"{first.milliseconds / chosen.milliseconds:.2f}x faster than {first.name} for one image on one thread"
        if prefer == "speed"
        else f"{chosen.bytes / first.bytes:.0%} of the bytes of {first.name}"
    )
    return f"{gain}, and not measurably less accurate"


def dominates(one: Candidate, other: Candidate) -> bool:
    """Return whether a file is both at least as small and as fast as another, and smaller or faster."""
    equal = (one.bytes, one.milliseconds) == (other.bytes, other.milliseconds)
    return one.bytes <= other.bytes and one.milliseconds <= other.milliseconds and not equal


def against(file: Candidate, chosen: Candidate) -> str:
    """Return what to know of a file that is not the recommended one."""
    if file.is_worse and not chosen.is_worse:
        return f"{file.name} is measurably less accurate: {words.signed(-file.lost, 2)} points (p = {file.p:.3g})."
    size = f"{file.bytes / chosen.bytes:.0%} of the bytes"
    if file.latency_ms is None or chosen.latency_ms is None:
        return f"{file.name} has {size} of {chosen.name}."
    times = f"{file.milliseconds / chosen.milliseconds:.2f}x the time"
    slower, larger = file.milliseconds >= chosen.milliseconds, file.bytes >= chosen.bytes
    if slower and larger:
        return f"{file.name} is slower and larger than {chosen.name} on this machine ({times}, {size})."
    if slower:
        return (
            f"{file.name} is smaller ({size}) but slower on this machine ({times}): for devices where bytes matter, or "
            "whose runtime is built for 8 bits."
        )
    if larger:
        return f"{file.name} is faster on this machine ({times}) but larger ({size})."
    return f"{file.name} is smaller ({size}) and faster ({times}) than {chosen.name}."

"""What can be measured on this machine (`potstill bench`), and how it is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from potstill import progress
from potstill.bench import loading, scale, speed, world
from potstill.errors import UserError, did_you_mean

Measure = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Axis:
    """A benchmark that runs anywhere, for a number of threads. text: what is compared, for people."""

    title: str
    text: str
    short: Measure
    full: Measure


AXES = {
    "data": Axis(
        "Loading never starves training",
        "batches a second of generated images, beside torchvision's ImageFolder and DataLoader with two workers",
        lambda threads: loading.measure(repeats=3, seconds=0.5, threads=threads),
        lambda threads: loading.measure(threads=threads),
    ),
    "speed": Axis(
        "As fast as training without a teacher",
        "ResNet-56 teaches ResNet-20 on 32 x 32 images, beside training without a teacher, a published loop with a "
        "live teacher, a hand-written one, and torchdistill where it is installed",
        lambda threads: speed.measure(world.generated(), rounds=3, seconds=1.0, threads=threads),
        lambda threads: speed.measure(world.generated(), threads=threads),
    ),
    "store": Axis(
        "A store of a million images",
        "memory and time of writing and reading the best 16 of 1,000 classes for many generated images",
        lambda threads: scale.measure(scale.SHORT, threads=threads),
        lambda threads: scale.measure(threads=threads),
    ),
}


def run(names: Sequence[str] = (), *, full: bool = False, threads: int = 2) -> dict[str, dict[str, Any]]:
    """Return what was measured, by axis; no names: all of them. full: as long as for benchmarks/RESULTS.md.

    Raises `UserError` for an unknown name.
    """
    unknown = [name for name in names if name not in AXES]
    if unknown:
        raise UserError(
            *(
                f"There is no benchmark {name!r}.{did_you_mean(name, AXES)} There are: {', '.join(AXES)}."
                for name in unknown
            )
        )
    chosen = [name for name in AXES if name in names or not names]
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cores / 2:
        progress.note(f"Other programs use this machine (load {load:.1f} on {cores} cores), so the figures are rough.")
    found = {}
    for name in chosen:
        progress.note(f"{name}: {AXES[name].text}.")
        found[name] = (AXES[name].full if full else AXES[name].short)(threads)
    return found

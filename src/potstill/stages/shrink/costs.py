"""What each candidate costs on a device, before any training: bytes, RAM, multiply-accumulates, latency.

Measured on its exported, untrained file. Truncations of one network at several input sizes are exported at one of them:
bytes are the same, and the rest is scaled with the number of pixels until a candidate is chosen for training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts, progress, words
from potstill.errors import ConfigError
from potstill.exporters.footprint import Footprint, footprint
from potstill.models.outputs import Classifier
from potstill.stages.shrink.candidates import Candidate
from potstill.stages.shrink.settings import Budgets

FIGURES = {"max_bytes": "bytes", "max_latency": "latency_ms", "max_ram": "ram_int8", "max_macs": "macs"}
"""The figure of a footprint that each limit is for."""
SHOWN: dict[str, Callable[[float], str]] = {
    "max_bytes": lambda value: words.size(int(value)),
    "max_latency": words.milliseconds,
    "max_ram": lambda value: words.size(int(value)),
    "max_macs": lambda value: words.count(int(value)),
}


@dataclass(frozen=True)
class Costed:
    """A candidate and its cost. exact: measured at its own input size."""

    candidate: Candidate
    cost: Footprint
    exact: bool = True

    def excess(self, budgets: Budgets) -> dict[str, float]:
        """Return the factor by which each limit is exceeded, above 1, by name of the limit."""
        factors = {name: getattr(self.cost, FIGURES[name]) / limit for name, limit in budgets.limits.items()}
        return {name: factor for name, factor in factors.items() if factor > 1}


class Costs:
    """The costs of candidates, measured once and recorded in a file of the run folder.

    build: makes the untrained network of a candidate.
    """

    def __init__(self, file: Path, build: Callable[[Candidate], Classifier]) -> None:
        self._file, self._build = file, build
        self._known: dict[str, dict[str, Any]] = artifacts.read_json(file) if file.is_file() else {}

    def of(self, candidate: Candidate) -> Costed:
        """Return the measured cost of a candidate."""
        if candidate.name not in self._known:
            measured = footprint(self._build(candidate), bits=candidate.bits, time=True)
            self._known[candidate.name] = measured.to_json()
            artifacts.write_json(self._file, self._known)
        return Costed(candidate, Footprint(**self._known[candidate.name]))

    def all_of(self, candidates: Iterable[Candidate]) -> list[Costed]:
        """Return the costs of candidates; those that differ only in input size are measured once and scaled."""
        candidates = list(candidates)
        measured: dict[tuple[Any, ...], Costed] = {}
        with progress.task("Measuring what the candidates cost", total=len(candidates)) as task:
            result = []
            for one in candidates:
                key = (one.model, tuple(one.options.items()), one.bits)
                if one.name in self._known or key not in measured or one.size is None:
                    measured[key] = self.of(one)
                    result.append(measured[key])
                else:
                    result.append(_scaled(measured[key], one))
                task.advance(text=one.name)
        return result


def _scaled(known: Costed, candidate: Candidate) -> Costed:
    assert candidate.size and known.candidate.size, "only photos have several sizes"
    pixels = (candidate.size / known.candidate.size) ** 2
    cost = known.cost
    scaled = {name: round(getattr(cost, name) * pixels) for name in ("macs", "ram_int8", "ram_float")}
    latency = None if cost.latency_ms is None else cost.latency_ms * pixels
    return Costed(candidate, dataclasses.replace(cost, **scaled, latency_ms=latency), exact=False)


def within(costed: Iterable[Costed], budgets: Budgets) -> list[Costed]:
    """Return the candidates within all limits; raise `ConfigError` with each impossible limit if there are none."""
    every = list(costed)
    fitting = [one for one in every if not one.excess(budgets)]
    if not fitting:
        raise ConfigError(*impossible(every, budgets))
    return fitting


def impossible(every: list[Costed], budgets: Budgets) -> list[str]:
    """Return a sentence for each limit that no candidate keeps, or one for limits that none keeps together."""
    sentences = []
    for name, limit in budgets.limits.items():
        least = min(every, key=lambda one, name=name: getattr(one.cost, FIGURES[name]))
        value = getattr(least.cost, FIGURES[name])
        if value > limit:
            sentences.append(
                f"{flag(name)} {SHOWN[name](limit)} is impossible: the smallest candidate, {least.candidate.name}, "
                f"takes {SHOWN[name](value)}, {value / limit:.1f} times as much. Allow at least {SHOWN[name](value)}."
            )
    if sentences:
        return sentences
    nearest = min(every, key=lambda one: max(one.excess(budgets).values()))
    over = ", ".join(f"{flag(name)} by a factor of {factor:.2f}" for name, factor in nearest.excess(budgets).items())
    return [
        f"No candidate keeps all budgets together. The nearest, {nearest.candidate.name}, exceeds {over}. Relax one of "
        f"{', '.join(map(flag, budgets.limits))}."
    ]


def flag(name: str) -> str:
    """Return the flag of a budget."""
    return "--" + name.replace("_", "-")


def front(costed: Iterable[Costed], accuracy: Mapping[str, float], key: str = "bytes") -> list[Costed]:
    """Return the candidates that no other one beats in accuracy and cost, the smallest first.

    accuracy: in percent, by name of the candidate; key: the figure of the footprint.
    """
    ordered = sorted(costed, key=lambda one: (getattr(one.cost, key), -accuracy[one.candidate.name]))
    result: list[Costed] = []
    for one in ordered:
        if not result or accuracy[one.candidate.name] > accuracy[result[-1].candidate.name]:
            result.append(one)
    return result

"""What each candidate costs on a device, before any training.

Parameters and multiply-accumulates of every candidate are counted on the untrained network. Bytes, RAM and latency are
measured on its exported, untrained file, but only of candidates whose turn it is: an export takes a second or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from potstill import artifacts, progress, words
from potstill.exporters.device_profile import DeviceProfile
from potstill.exporters.footprint import Footprint, footprint
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from potstill.stages.shrink.candidates import Candidate, average_bits, lost_by
from potstill.stages.shrink.settings import Budgets

FIGURES = {"max_bytes": "bytes", "max_latency": "latency_ms", "max_ram": "ram_int8", "max_macs": "macs"}
"""The figure of a footprint that each limit is for."""
SHOWN: dict[str, Callable[[float], str]] = {
    "max_bytes": lambda value: words.size(int(value)),
    "max_latency": words.milliseconds,
    "max_ram": lambda value: words.size(int(value)),
    "max_macs": lambda value: words.count(int(value)),
}
RESERVE = 1500
"""Bytes of a shipped file beyond those of the untrained one: temperature, source and digests in its metadata."""
Build = Callable[[Candidate], Classifier]


@dataclass(frozen=True)
class Sketch:
    """A candidate and what is counted without an export."""

    candidate: Candidate
    parameters: int
    macs: int

    @property
    def bytes(self) -> float:
        """Bytes of the weights with the fewest bits: less than those of the file."""
        return self.parameters * self.candidate.fewest_bits / 8

    def fits(self, budgets: Budgets) -> bool:
        """Whether the budgets can be kept, as far as this shows."""
        small = budgets.max_bytes is None or self.bytes < budgets.max_bytes
        return small and (budgets.max_macs is None or self.macs <= budgets.max_macs)


@dataclass(frozen=True)
class Costed:
    """A candidate and its measured cost; the bytes of one with few bits are those with `candidate.bits` everywhere."""

    candidate: Candidate
    cost: Footprint

    def excess(self, budgets: Budgets) -> dict[str, float]:
        """Return the factor by which each limit is exceeded, above 1, by name of the limit."""
        factors = {name: getattr(self.least, FIGURES[name]) / limit for name, limit in budgets.limits.items()}
        return {name: factor for name, factor in factors.items() if factor > 1}

    def within(self, budgets: Budgets) -> Costed:
        """Return it with the bytes that it will have: bits differ by layer so that a file with few bits fits.

        Without a target of accuracy, which fewer bytes may reach, the whole budget is used.
        """
        limit = budgets.max_bytes
        if limit is None or self.candidate.bits >= 8:
            return self
        size = limit if not budgets.wants_accuracy else min(self.cost.bytes, limit)
        return replace(self, cost=replace(self.cost, bytes=size))

    @property
    def lost(self) -> float:
        """The points of accuracy that its weights may cost when they have their bits."""
        few = self.candidate.bits < 8
        return lost_by(average_bits(self.cost.bytes, self.cost.parameters) if few else self.candidate.bits)

    @property
    def least(self) -> Footprint:
        """Its cost with the fewest bits."""
        saved = (self.candidate.bits - self.candidate.fewest_bits) * self.cost.parameters / 8
        return replace(self.cost, bytes=self.cost.bytes - int(saved))


class Costs:
    """The costs of candidates, each measured once and recorded in a file of the run folder.

    build: makes the untrained network of a candidate. device: whose latency counts; None is this machine.
    """

    def __init__(self, file: Path, build: Build, device: DeviceProfile | None = None) -> None:
        self._file, self._build, self._device = file, build, device
        self._known: dict[str, dict[str, Any]] = artifacts.read_json(file) if file.is_file() else {}

    def of(self, candidate: Candidate) -> Costed:
        """Return the measured cost of a candidate."""
        if candidate.name not in self._known:
            with progress.task(f"Measuring what {candidate.name} costs", total=1):
                network = self._build(candidate)
                measured = footprint(network, bits=candidate.bits, time=True, device=self._device)
            latency = measured.latency_ms if measured.device_ms is None else measured.device_ms
            measured = replace(measured, bytes=measured.bytes + RESERVE, latency_ms=latency)
            self._known[candidate.name] = measured.to_json()
            artifacts.write_json(self._file, self._known)
        return Costed(candidate, Footprint(**self._known[candidate.name]))


def sketched(candidates: Iterable[Candidate], build: Build) -> list[Sketch]:
    """Return parameters and multiply-accumulates of candidates; those that differ only in bits are counted once."""
    known: dict[str, Sketch] = {}
    result = []
    for one in candidates:
        if one.network not in known:
            network = build(one)
            counted = cost(network, torch.zeros(1, network.card.channels, *network.card.size))
            known[one.network] = Sketch(one, counted.params, counted.total_macs)
        result.append(replace(known[one.network], candidate=one))
    return result


def impossible(every: Sequence[Sketch], costs: Costs, budgets: Budgets) -> list[str]:
    """Return a sentence for each limit that no candidate keeps, or one for limits that none keeps together."""
    ends = {min(every, key=lambda one, key=key: (getattr(one, key), one.macs)).candidate for key in ("bytes", "macs")}
    smallest = [costs.of(one) for one in sorted(ends, key=lambda one: one.name)]
    sentences = []
    for name, limit in budgets.limits.items():
        least = min(smallest, key=lambda one, name=name: getattr(one.least, FIGURES[name]))
        value = getattr(least.least, FIGURES[name])
        if value > limit:
            sentences.append(
                f"{flag(name)} {SHOWN[name](limit)} is impossible: the smallest candidate, {least.candidate.name}, "
                f"takes {SHOWN[name](value)}, {value / limit:.1f} times as much. Allow at least {SHOWN[name](value)}."
            )
    if sentences:
        return sentences
    nearest = min(smallest, key=lambda one: max(one.excess(budgets).values(), default=1.0))
    over = ", ".join(f"{flag(name)} by a factor of {factor:.2f}" for name, factor in nearest.excess(budgets).items())
    return [
        f"No candidate keeps all budgets together. The nearest, {nearest.candidate.name}, exceeds {over or 'one'}. "
        f"Relax one of {', '.join(map(flag, budgets.limits))}."
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

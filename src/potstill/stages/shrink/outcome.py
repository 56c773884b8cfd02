"""The summary of a search: what is shipped, what was looked at, and the forecast beside the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potstill.stages.shrink import choice
from potstill.stages.shrink.choice import Choice
from potstill.stages.shrink.costs import Costs
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.search import Entry, Found
from potstill.stages.shrink.ship import Picked
from potstill.stages.shrink.teacher import Made

ROLES = ("teacher", "student", "control")


def summary(
    look: Look,
    forecast: dict[str, Any],
    chosen: Choice,
    found: Found,
    entries: Sequence[Entry],
    costs: Costs,
    teacher: Made,
    proof: dict[str, Any],
    shipped: dict[str, Any],
    picked: Picked,
) -> dict[str, Any]:
    """Return the stage's part of the summary (docs/summary.md). shipped: `ship` and the figures behind it."""
    ship = shipped["ship"]
    models, candidate = proof["models"], chosen.entry.candidate
    cost = costs.of(candidate).cost
    measured = {key: ship[key] for key in ("accuracy", "interval", "images", "recall", "bytes", "latency_ms", "file")}
    front = {one.candidate.name for one in choice.costed_front(entries, found)}
    parameters = models[picked.kind]["parameters"]
    return {
        "data": proof["data"],
        "look": look.to_json(),
        "models": {
            "shipped": {"name": candidate.name, "parameters": parameters, "macs": cost.macs, **measured},
            **{role: models[role] for role in ROLES if role in models},
        },
        "verdict": proof["verdict"],
        **shipped,
        "ship": {
            **ship,
            "ram": cost.ram_int8,
            "macs": cost.macs,
            "parameters": parameters,
        },
        "teacher": {"name": teacher.name, "validation_accuracy": teacher.accuracy, **teacher.facts},
        "choice": chosen.to_json(),
        "forecast": forecast | {"outcome": _held(forecast["student"]["interval"], ship["accuracy"])},
        "candidates": [
            _row(entry, found, chosen, ship) | {"front": entry.candidate.name in front} for entry in entries
        ],
        "run": str(picked.folder.parent.parent),
    }


def _held(interval: Sequence[float], accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "held": interval[0] <= accuracy <= interval[1]}


def _row(entry: Entry, found: Found, chosen: Choice, ship: dict[str, Any]) -> dict[str, Any]:
    """Return one candidate: its cost, and its validation accuracy after the short and the full training.

    The chosen one has the bytes of the file that is shipped.
    """
    candidate = entry.candidate
    full = found.full.get(candidate.network)
    return {
        "name": candidate.name,
        "size": candidate.size,
        "bits": candidate.bits,
        "prior": candidate.prior,
        "epochs": entry.epochs if full else entry.short,
        "validation_accuracy": round(found.accuracy(entry.costed), 3),
        "finalist": full is not None,
        "chosen": candidate.name == chosen.entry.candidate.name,
        **entry.costed.cost.to_json(),
        **({"bytes": ship["bytes"]} if candidate.name == chosen.entry.candidate.name else {}),
    }

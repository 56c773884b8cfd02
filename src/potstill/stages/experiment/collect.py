"""What the steps of an experiment measured, by name: `STEP/VALUE/.../ROLE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from potstill.evaluation.statistics import percent_interval
from potstill.stages.experiment.expand import Part

SHOWN = ("parameters", "macs", "bytes", "latency_ms", "lost", "agreement", "max_logit_difference")
"""Figures of a model that a result keeps beside its accuracy."""


def collected(done: list[tuple[Part, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the results by name: those that differ in their seed alone are one, with a value for each seed.

    A result has `values` (test accuracy per seed, percent) and `measures`, a number or a list of numbers per measure.
    """
    results: dict[str, dict[str, Any]] = {}
    for part, summary in done:
        for role, figures, more in _models(summary):
            name = f"{part.key}/{role}"
            result = results.setdefault(name, {"values": [], "measures": {}, **more})
            result["values"] += figures.get("test_accuracy") or [figures["accuracy"]]
            for key in SHOWN:
                if figures.get(key) is not None:
                    result["measures"].setdefault(key, []).append(figures[key])
            for key, value in _measures(part, role, summary).items():
                result["measures"].setdefault(key, []).extend(value if isinstance(value, list) else [value])
            result.setdefault("wilson", figures.get("interval"))
    for result in results.values():
        result |= _over_seeds(result.pop("values"), result.pop("wilson"))
    return results


def _models(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """Yield (role, figures, what else a plot needs) of every model of a summary."""
    more = {key: summary[key] for key in ("curves", "gradients") if key in summary}
    for role, figures in summary["models"].items():
        if figures.get("accuracy") is not None:
            yield role, figures, more
    for name, student in summary.get("students", {}).items():
        for method in student["methods"]:
            yield f"{name}/{method['method']}", method | {"parameters": student["parameters"]}, {}
    for other in summary.get("comparisons") or ():
        for role, figures in other["models"].items():
            yield f"{other['name']}/{role}", figures, {}


def _measures(part: Part, role: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what some stages measure of a model beside its figures."""
    result: dict[str, Any] = {}
    if part.stage == "train":
        result["train_error"] = [round(100 - accuracy, 3) for accuracy in summary["train_accuracy"]]
        result |= summary["survives"] or {}
    if "formats" in summary and role == "simulated":
        formats = [one for one in summary["formats"].values() if one]
        result["bits"] = max(one["bits"] for one in formats)
        errors = [layer["weight_error"] for layer in summary["layers"].values() if "weight_error" in layer]
        result |= {"weight_error": round(100 * float(np.mean(errors)), 4)} if errors else {}
    if "bits" in summary and role != "original":
        result["bits"] = part.settings.get("weight_bits", 8)
    return result


def _over_seeds(values: list[float], wilson: Any) -> dict[str, Any]:
    """Return seeds, mean and interval: Student's t over seeds, over the test images for a single one."""
    interval = percent_interval(values)
    return {
        "accuracy": values,
        "mean": round(float(np.mean(values)), 3),
        "interval": wilson if interval is None else [round(bound, 3) for bound in interval],
    }


def measure(result: Mapping[str, Any], name: str) -> list[float]:
    """Return the values of a measure of a result, one per seed; none if it was not measured.

    error is 100 minus the accuracy.
    """
    if name == "error":
        return [round(100 - value, 3) for value in result["accuracy"]]
    return result["accuracy"] if name == "accuracy" else list(result["measures"].get(name, ()))

"""The first screen of a stage that ships a file: every figure is of that file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill import words
from potstill.evaluation.statistics import FINE
from potstill.report.advice import TONES, compared, effect
from potstill.report.commands import next_steps
from potstill.report.page import First

NAMES = {"teacher": "the teacher", "original": "the original", "network": "the network before export"}


def digits_of(summary: Mapping[str, Any]) -> int:
    """Return the decimals of accuracies: two where there are so many test images."""
    return 2 if summary["data"]["splits"]["test"] >= FINE else 1


def first(summary: Mapping[str, Any], folder: Path) -> First:
    """Return the first screen of a stage. folder: where it is, for the commands."""
    headline, tone, stamp = verdict(summary)
    return First(
        headline,
        tone,
        stamp,
        tuple(lines(summary)),
        tuple(tiles(summary)),
        effect(summary, digits_of(summary)),
        tuple(next_steps(summary, folder)),
    )


def verdict(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return headline, tone and stamp: guessing first, then whether the teacher did harm, then the target."""
    ship, digits = summary["ship"], digits_of(summary)
    target, found = ship["target"], summary.get("verdict") or {}
    stamp = ("Target met" if target["met"] else "Target not met") if target else ""
    if not ship["better_than_guessing"]:
        classes = words.plural(len(summary["data"]["classes"]), "class")
        accuracy = words.percent(ship["accuracy"], digits)
        return f"Not measurably better than guessing among {classes}: {ship['file']} has {accuracy}", "bad", stamp
    if ship["dominated_by"]:
        return f"Do not ship {ship['file']}: {ship['dominated_by']} is smaller and faster", "bad", stamp
    if found.get("result") == "LOSES" and ship["role"] != "shipped":
        loss = f"{-found['difference']:.{digits}f}"
        return f"Do not ship the student: without the teacher it is {loss} points better", "bad", stamp
    if target and not target["met"]:
        return f"Target not met: {ship['file']} has {target['missed'][0]}", "bad", stamp
    size = f"{words.percent(ship['accuracy'], digits)} in {words.size(ship['bytes'])}"
    tone = "good" if target else TONES.get(found.get("result", ""), "even")
    return f"Ship {ship['file']}: {size}", tone, stamp or (compared(found, digits) if found else "")


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Return what to ship, how good, whether the target is met, how big and fast, and how sure the labels are."""
    ship = summary["ship"]
    facts = [_which(summary), accuracy(summary), _target(ship), _cost(ship), *ship["others"].values(), _labels(summary)]
    return [sentence for sentence in facts if sentence]


def _which(summary: Mapping[str, Any]) -> str:
    ship, model = summary["ship"], summary["models"].get(summary["ship"]["role"], {})
    seed = "" if ship["seed"] is None else f"seed {ship['seed']}"
    described = [model.get("name") or ship.get("model", ""), seed if seed and seed not in ship["why"] else ""]
    text = ", ".join(part for part in (*described, ship["why"]) if part)
    because = f" Chosen because {ship['because']}." if ship["because"] else ""
    return f"{ship['file']}{': ' + text if text else ''}.{because}"


def accuracy(summary: Mapping[str, Any]) -> str:
    """Return the accuracy of the shipped file with its interval, the gap to its reference, and what guessing gives."""
    ship, digits = summary["ship"], digits_of(summary)
    low, high = (f"{bound:.{digits}f}" for bound in ship["interval"])
    images = words.plural(ship["images"], "test image")
    text = f"{words.percent(ship['accuracy'], digits)} of {images} (95 % interval {low} to {high})"
    gap = below(ship, digits)
    return f"{text}{', ' + gap if gap else ''}. Guessing gives {words.percent(ship['guessing'], digits)}."


def below(ship: Mapping[str, Any], digits: int) -> str:
    """Return "6.7 points below the teacher (95 % interval −8.9 to −4.5)"; nothing without a reference."""
    reference = ship["reference"]
    if reference is None:
        return ""
    low, high = (words.signed(bound, digits) for bound in reference["interval"])
    name, difference = NAMES.get(reference["role"], reference["role"]), reference["difference"]
    points = f"{abs(difference):.{digits}f} points"
    side = "below" if difference < 0 else "above"
    return f"as accurate as {name}" if not difference else f"{points} {side} {name} (95 % interval {low} to {high})"


def _target(ship: Mapping[str, Any]) -> str:
    target = ship["target"]
    if target is None:
        return ""
    return "The target is met." if target["met"] else f"The target is not met: {'; '.join(target['missed'])}."


def _cost(ship: Mapping[str, Any]) -> str:
    parts = [words.size(ship["bytes"])]
    if ship["latency_ms"] is not None:
        parts.append(f"{words.milliseconds(ship['latency_ms'])} per image on one thread of this machine")
    if ship.get("ram"):
        parts.append(f"{words.count(ship['macs'])} multiply-accumulates")
        parts.append(f"peak activations {words.size(ship['ram'])} in 8 bits")
    return ", ".join(parts) + "."


def _labels(summary: Mapping[str, Any]) -> str:
    errors = summary.get("label_errors")
    if not errors or not errors.get("suspicious"):
        return ""
    low, high = errors["interval"]
    return (
        f"About {words.percent(errors['share'])} of the test labels look wrong ({low:.1f} to {high:.1f}, by "
        f"{NAMES.get(errors['by'], 'the model')}): accuracy is uncertain by as much."
    )


def tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headline figures: (figure, caption)."""
    ship, digits = summary["ship"], digits_of(summary)
    low, high = (f"{bound:.{digits}f}" for bound in ship["interval"])
    accurate = words.percent(ship["accuracy"], digits)
    figures = [(accurate, f"test accuracy of {ship['file']} (95 % interval {low} to {high})")]
    reference = ship["reference"]
    name = "" if reference is None else NAMES.get(reference["role"], reference["role"])
    whole = {} if reference is None else summary["models"].get(reference["role"], {})
    other = f"; {name} has {words.size(whole['bytes'])}" if whole.get("bytes") else ""
    figures.append((words.size(ship["bytes"]), f"file size{other}"))
    if ship["latency_ms"] is not None:
        figures.append((words.milliseconds(ship["latency_ms"]), "per image, one thread, this machine"))
    if reference is not None:
        low, high = (words.signed(bound, digits) for bound in reference["interval"])
        theirs = words.percent(reference["accuracy"], digits)
        caption = f"points against {name} ({theirs}), 95 % interval {low} to {high}"
        figures.append((words.signed(reference["difference"], digits), caption))
    guess = f"what guessing gives (the most frequent of {words.plural(len(summary['data']['classes']), 'class')})"
    figures.append((words.percent(ship["guessing"], digits), guess))
    return figures

"""The headline of a report: what the verdict means, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.words import signed

TONES = {"BEATS": "good", "TIES": "even", "LOSES": "bad"}
MANY_SEEDS = 5  # from here on another seed narrows the interval only a little
HIGH_TEMPERATURE = 2.0
SIGNIFICANT = "The difference is significant: it exceeds the variation over test images and over seeds."


@dataclass(frozen=True)
class Advice:
    """The headline of a report: its title, what the verdict means, and what to try next."""

    title: str
    tone: str
    meaning: str
    next: tuple[str, ...]


def advise(summary: dict[str, Any], digits: int) -> Advice:
    """Return the advice for a run. digits: after the decimal point of accuracies."""
    verdict = summary.get("verdict")
    if verdict is None:
        return Advice(
            "The effect of distillation was not measured",
            "even",
            "No control was trained (the same student without a teacher), so the gain from the teacher is unknown.",
            ("Run again with a control to measure whether distillation is worth its time.",),
        )
    if verdict["seeds"] == 1:
        return _one_seed(verdict, digits)
    return {"BEATS": _beats, "TIES": _ties, "LOSES": _loses}[verdict["result"]](summary, verdict, digits)


def _beats(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    gain = f"{verdict['difference']:.{digits}f}"
    return Advice(
        f"Distillation helped: accuracy gained {gain} points",
        "good",
        f"The distilled student classifies {gain} more of 100 test images correctly than the same student trained "
        f"without a teacher. {SIGNIFICANT}",
        ("Use student.onnx, or student_int8.onnx if its accuracy in the table below is sufficient.",),
    )


def _one_seed(verdict: dict[str, Any], digits: int) -> Advice:
    difference = f"{abs(verdict['difference']):.{digits}f} {'more' if verdict['difference'] > 0 else 'fewer'}"
    return Advice(
        "One seed is not enough to tell whether distillation helped",
        "even",
        f"The distilled student classifies {difference} of 100 test images correctly than the same student trained "
        "without a teacher. Training either of them again with another seed may change that by as much.",
        ("Train 3 seeds (this run had 1) to measure how much accuracy varies between seeds.",),
    )


def _ties(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    low, high = (signed(end, digits) for end in verdict["interval"])
    return Advice(
        "Distillation did not help: no significant difference from the control",
        "even",
        "The student is about as accurate without the teacher. "
        f"If the teacher has an effect, it is between {low} and {high} points.",
        (
            "Use either; the control is simpler to train, because it needs no teacher.",
            *_suggestions(summary),
            *_more_seeds(verdict["seeds"]),
        ),
    )


def _loses(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    loss = f"{-verdict['difference']:.{digits}f}"
    return Advice(
        f"Distillation reduced accuracy: it lost {loss} points",
        "bad",
        f"The distilled student classifies {loss} fewer of 100 test images correctly than the same student trained "
        f"without a teacher. {SIGNIFICANT}",
        ("Do not use this student. Use the control; its weights are in control/seed-0.", *_suggestions(summary)),
    )


def _suggestions(summary: dict[str, Any]) -> list[str]:
    """Return changes that may make distillation help, the most promising first."""
    tips = []
    models, splits = summary.get("models", {}), summary.get("data", {}).get("splits", {})
    teacher, control = (mean_accuracy(models.get(name)) for name in ("teacher", "control"))
    if teacher is not None and control is not None and teacher <= control:
        tips.append("Find or train a better teacher first: this one is not more accurate than the control.")
    if not splits.get("unlabelled"):
        tips.append(
            "Add unlabelled images, if you have any: the student also learns from the teacher's predictions for them, "
            "which is often where a teacher helps most."
        )
    temperature = find(summary.get("recipe", {}), "temperature")
    if temperature and temperature > HIGH_TEMPERATURE:
        tips.append(
            f"Try a lower temperature than {temperature:g}, such as 2: a high temperature emphasises the smallest of "
            "the teacher's probabilities, which a small student may not be able to fit."
        )
    tips.append("Try a larger student: this one may be at its capacity.")
    return tips


def _more_seeds(seeds: int) -> list[str]:
    if seeds >= MANY_SEEDS:
        return []
    return [f"Train more seeds (this run had {seeds}): the interval narrows, so that smaller differences show."]


def mean_accuracy(model: dict[str, Any] | None) -> float | None:
    """Return a model's test accuracy in percent, the mean over seeds; None if it was not measured."""
    return (model or {}).get("accuracy")


def find(settings: Any, key: str) -> Any:
    """Return the first value of `key` anywhere in nested settings, None if there is none."""
    if isinstance(settings, dict):
        if key in settings:
            return settings[key]
        settings = list(settings.values())
    if isinstance(settings, list):
        values = (find(inner, key) for inner in settings)
        return next((value for value in values if value is not None), None)
    return None


def compared(verdict: dict[str, Any], digits: int) -> str:
    """Return a verdict as a label: "BEATS by 8.4 points", "TIES (−0.3 points)"."""
    result, difference = verdict["result"], verdict["difference"]
    if result == "TIES":
        return f"TIES ({signed(difference, digits)} points)"
    return f"{result} by {abs(difference):.{digits}f} points"

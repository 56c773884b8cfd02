"""Whether the teacher helped: what the verdict means, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill import words
from potstill.report.page import Effect
from potstill.words import signed

TONES = {"BEATS": "good", "TIES": "even", "LOSES": "bad"}
MANY_SEEDS = 5  # from here on another seed narrows the interval only a little
HIGH_TEMPERATURE = 2.0
SIGNIFICANT = "The difference is significant: it exceeds the variation over test images and over seeds."


def effect(summary: Mapping[str, Any], digits: int) -> Effect | None:
    """Return whether the teacher helped; None where no teacher took part. digits: of accuracies."""
    if summary["kind"] not in ("distill", "shrink"):
        return None
    verdict = summary.get("verdict")
    if verdict is None:
        return Effect(
            "The effect of distillation was not measured",
            "even",
            "No control was trained (the same student without a teacher), so the gain from the teacher is unknown.",
        )
    title, meaning = _meaning(summary, verdict, digits)
    advice = suggestions(summary)
    text = " ".join([meaning, _means(summary["models"], verdict, digits), *(advice and ["To improve it:", *advice])])
    tone = TONES[verdict["result"]] if verdict["seeds"] > 1 else "even"
    return Effect(title, tone, text.replace("  ", " "), scaled(verdict, digits))


def _meaning(summary: Mapping[str, Any], verdict: Mapping[str, Any], digits: int) -> tuple[str, str]:
    points = f"{abs(verdict['difference']):.{digits}f}"
    if verdict["seeds"] == 1:
        side = "more" if verdict["difference"] > 0 else "fewer"
        return (
            "One seed is not enough to tell whether distillation helped",
            f"The distilled student classifies {points} {side} of 100 test images correctly than the same student "
            "trained without a teacher. Training either of them again with another seed may change that by as much.",
        )
    if verdict["result"] == "TIES":
        low, high = (signed(end, digits) for end in verdict["interval"])
        return (
            "Distillation did not help: no significant difference from the control",
            "The student is about as accurate without the teacher. "
            f"If the teacher has an effect, it is between {low} and {high} points.",
        )
    side, title = (
        ("more", f"Distillation helped: accuracy gained {points} points")
        if verdict["result"] == "BEATS"
        else ("fewer", f"Distillation reduced accuracy: it lost {points} points")
    )
    return title, (
        f"The distilled student classifies {points} {side} of 100 test images correctly than the same student trained "
        f"without a teacher. {SIGNIFICANT}"
    )


def _means(models: Mapping[str, Any], verdict: Mapping[str, Any], digits: int) -> str:
    """Return the means over seeds, which the verdict compares: the shipped file is one of them."""
    student, control = (mean_accuracy(models.get(role)) for role in ("student", "control"))
    if verdict["seeds"] == 1 or student is None or control is None:
        return ""
    of = words.plural(verdict["seeds"], "seed")
    return f"Means over {of}: student {words.percent(student, digits)}, control {words.percent(control, digits)}."


def suggestions(summary: Mapping[str, Any]) -> list[str]:
    """Return changes that may make distillation help, the most promising first; none where it did."""
    verdict = summary["verdict"]
    if verdict["seeds"] == 1:
        return ["Train 3 seeds (this run had 1) to measure how much accuracy varies between seeds."]
    if verdict["result"] == "BEATS":
        return []
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
    if verdict["result"] == "TIES" and verdict["seeds"] < MANY_SEEDS:
        seeds = verdict["seeds"]
        tips.append(f"Train more seeds (this run had {seeds}): the interval narrows, so that smaller differences show.")
    return tips


def mean_accuracy(model: Mapping[str, Any] | None) -> float | None:
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


def compared(verdict: Mapping[str, Any], digits: int) -> str:
    """Return a verdict as a label: "BEATS by 8.4 points", "TIES (−0.3 points)"."""
    result, difference = verdict["result"], verdict["difference"]
    if result == "TIES":
        return f"TIES ({signed(difference, digits)} points)"
    return f"{result} by {abs(difference):.{digits}f} points"


def scaled(verdict: Mapping[str, Any], digits: int) -> dict[str, Any]:
    """Return a verdict with its texts and its place on a scale with zero, in percent of the width of the scale."""
    low, high = verdict["interval"]
    left, right = min(0.0, low), max(0.0, high)
    width = (right - left) or 1.0
    left, width = left - 0.15 * width, 1.3 * width
    difference, span = signed(verdict["difference"], digits), f"{signed(low, digits)} to {signed(high, digits)}"
    percent = f"{100 * verdict.get('confidence', 0.95):g}"
    return {
        **verdict,
        "label": compared(verdict, digits),
        "tone": TONES[verdict["result"]],
        "at": {name: 100 * (value - left) / width for name, value in (("zero", 0.0), ("low", low), ("high", high))},
        "dot": 100 * (verdict["difference"] - left) / width,
        "difference_text": difference,
        "alt": f"Difference {difference} points, {percent} percent interval {span}",
    }

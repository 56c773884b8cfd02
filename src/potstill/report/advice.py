"""What the verdict means for the reader, and what to do next, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.report.words import MINUS, signed

TONES = {"BEATS": "good", "TIES": "even", "LOSES": "bad"}
MANY_SEEDS = 5  # from here on another seed narrows the interval only a little
HIGH_TEMPERATURE = 2.0
LUCK = "That is more than luck with the images or with the training explains."


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
            "What the teacher was worth is not known",
            "even",
            "No control was trained: the same student without a teacher. So nobody can say what the teacher added.",
            ("Run again with a control to learn whether the teacher is worth its time.",),
        )
    if verdict["seeds"] == 1:
        return _one_seed(verdict, digits)
    return {"BEATS": _beats, "TIES": _ties, "LOSES": _loses}[verdict["result"]](summary, verdict, digits)


def _beats(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    gain = f"{verdict['difference']:.{digits}f}"
    return Advice(
        f"Distillation helped: {gain} points more",
        "good",
        f"Of 100 test images, the student with a teacher gets {gain} more right than the same student without one. "
        + LUCK,
        ("Use student.onnx, or student_int8.onnx where its accuracy in the table below is enough.",),
    )


def _one_seed(verdict: dict[str, Any], digits: int) -> Advice:
    difference = f"{abs(verdict['difference']):.{digits}f} {'more' if verdict['difference'] > 0 else 'fewer'}"
    return Advice(
        "One seed cannot tell whether distillation helped",
        "even",
        f"Of 100 test images, the student with a teacher gets {difference} right than the same student without one. "
        "Training either of them again may change that by as much.",
        ("Train three seeds (this run had one), to learn how much training again changes the figures.",),
    )


def _ties(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    low, high = (signed(end, digits) for end in verdict["interval"])
    return Advice(
        "Distillation did not help: any difference may be luck",
        "even",
        "The student learned about as well without the teacher. "
        f"If the teacher makes a difference at all, it lies between {low} and {high} points.",
        (
            "You may use either; the control is simpler to make, because it needs no teacher.",
            *_try(summary),
            *_more_seeds(verdict["seeds"]),
        ),
    )


def _loses(summary: dict[str, Any], verdict: dict[str, Any], digits: int) -> Advice:
    loss = f"{-verdict['difference']:.{digits}f}"
    return Advice(
        f"Distillation did not help, it did harm: {loss} points fewer",
        "bad",
        f"Of 100 test images, the student with a teacher gets {loss} fewer right than the same student without one. "
        + LUCK,
        ("Do not use this student. Use the control; its weights are in control/seed-0.", *_try(summary)),
    )


def _try(summary: dict[str, Any]) -> list[str]:
    """Return what may make distillation worth it, the likeliest first."""
    tips = []
    models, splits = summary.get("models", {}), summary.get("data", {}).get("splits", {})
    teacher, control = (mean_accuracy(models.get(name)) for name in ("teacher", "control"))
    if teacher is not None and control is not None and teacher <= control:
        tips.append(
            "Find or train a better teacher first: this one is no better than the control, so it has little to teach."
        )
    if not splits.get("unlabelled"):
        tips.append(
            "Add images without labels, if you have any. The student can learn from what the teacher says of them; "
            "that is where a teacher is often worth most."
        )
    temperature = find(summary.get("recipe", {}), "temperature")
    if temperature and temperature > HIGH_TEMPERATURE:
        tips.append(
            f"Try a lower temperature than {temperature:g}, such as 2. A small student cannot copy every faint hint "
            "of the teacher and pays for trying."
        )
    tips.append("Try a bigger student: this one may already hold all it can.")
    return tips


def _more_seeds(seeds: int) -> list[str]:
    if seeds >= MANY_SEEDS:
        return []
    had = f"Train more seeds (this run had {seeds})."
    return [f"{had} The interval gets narrower, so that a smaller difference shows."]


def mean_accuracy(model: dict[str, Any] | None) -> float | None:
    """Return a model's test accuracy in percent, the mean over seeds; None where it was not measured."""
    return (model or {}).get("accuracy")


def find(settings: Any, key: str) -> Any:
    """Return the first value of `key` anywhere in nested settings, None where there is none."""
    if isinstance(settings, dict):
        if key in settings:
            return settings[key]
        settings = list(settings.values())
    if isinstance(settings, list):
        found = (find(inner, key) for inner in settings)
        return next((value for value in found if value is not None), None)
    return None


def compared(verdict: dict[str, Any], digits: int) -> str:
    """Return a verdict as a label: "BEATS by 8.4 points", "TIES (−0.3 points)"."""
    result, difference = verdict["result"], verdict["difference"]
    if result == "TIES":
        return f"TIES ({signed(difference, digits)} points)"
    return f"{result} by {signed(abs(difference), digits).lstrip('+' + MINUS)} points"

"""`method: auto`: a short search on the validation images over method, temperature and weight.

Successive halving (arXiv:1502.07943): every candidate is trained for a few epochs, the best third is trained longer,
and so on until one is left; each round costs about the same. The candidates are settings from published work and from
this project's measurements (docs/losses.md). The cost of the search is reported, because the control has no search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.objectives.objective import Term
from potstill.stages.recipe import Recipe
from potstill.words import plural

KEPT = 3  # one in so many candidates is kept for the next round
SEED = 1000  # added to the seed of trials, so that no reported result has the same seed

Trial = Callable[[Sequence[Term], int, str], tuple[float, float]]  # terms, epochs, name -> validation %, seconds


@dataclass(frozen=True)
class Choice:
    """The result of a search: name and terms of the best candidate, and the record of every trial."""

    name: str
    terms: tuple[Term, ...]
    record: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The sentence about the search in the report."""
        record = self.record
        return (
            f"The method was chosen by a search on {plural(record['validation_images'], 'validation image')}: "
            f"{plural(record['candidates'], 'setting')}, {plural(record['trials'], 'training')}, "
            f"{plural(record['epochs'], 'epoch')} in total, {record['share']:.0f} % of the cost of control "
            f"and students. Best: {self.name}. "
            "The control has no method, temperature or weight to search."
        )


def candidates(classes: int) -> dict[str, tuple[Term, ...]]:
    """Return the settings to try, by name, the simplest first: of equally good ones the simplest is chosen."""

    def mix(loss: str, labels: float, weight: float, **options: float) -> tuple[Term, ...]:
        return Term(loss="cross_entropy", weight=labels), Term(loss=loss, weight=weight, options=options)

    settings = {
        f"kd T={temperature:g} alpha={alpha:g}": mix("kd", alpha, 1 - alpha, temperature=temperature)
        for alpha in (0.5, 0.1)
        for temperature in (1.0, 2.0, 4.0)
    }
    settings["hard_label"] = mix("hard_label", 0.5, 0.5)
    settings["wttm gamma=0.2"] = mix("wttm", 1.0, 4.0, gamma=0.2)
    settings |= {f"dist T={value:g}": mix("dist", 1.0, 2.0, temperature=value) for value in (1.0, 4.0)}
    if classes > 2:  # these losses are undefined for two classes
        settings |= {f"ls_kd weight={weight:g}": mix("ls_kd", 0.1, weight, temperature=2.0) for weight in (1.0, 9.0)}
        settings["dkd T=2 beta=2"] = mix("dkd", 1.0, 1.0, alpha=1.0, beta=2.0, temperature=2.0)
        settings["dkd T=4 beta=8"] = mix("dkd", 1.0, 1.0, alpha=1.0, beta=8.0, temperature=4.0)
    return settings


def rounds(count: int, budget: int, longest: int) -> list[tuple[int, int]]:
    """Return (candidates, epochs of each) for every round: the rounds share `budget` epochs, `longest` at most."""
    sizes = [count]
    while sizes[-1] > KEPT:
        sizes.append(-(-sizes[-1] // KEPT))
    return [(size, min(max(round(budget / len(sizes) / size), 1), longest)) for size in sizes]


def choose(recipe: Recipe, *, classes: int, validation_images: int, trial: Trial) -> Choice:
    """Return the terms with the best validation accuracy, within about `objective.search` epochs of training.

    trial: trains a student with terms for some epochs; returns its validation accuracy in percent and the seconds.
    """
    settings = candidates(classes)
    budget = recipe.objective.search or 2 * recipe.train.epochs
    left, record_of_rounds = list(settings), []
    for size, epochs in rounds(len(settings), budget, recipe.train.epochs):
        left = left[:size]
        results = {name: trial(settings[name], epochs, f"{epochs}-epochs/{_folder(name)}") for name in left}
        record_of_rounds.append(
            {
                "epochs": epochs,
                "trials": [
                    {"name": name, "validation_accuracy": round(accuracy, 3), "seconds": seconds}
                    for name, (accuracy, seconds) in results.items()
                ],
            }
        )
        left = sorted(left, key=lambda name: (-results[name][0], list(settings).index(name)))
    return Choice(left[0], settings[left[0]], _record(recipe, left[0], settings, record_of_rounds, validation_images))


def _record(
    recipe: Recipe,
    chosen: str,
    settings: dict[str, tuple[Term, ...]],
    rounds: list[dict[str, Any]],
    validation_images: int,
) -> dict[str, Any]:
    """Return the record of a search for the summary."""
    spent = sum(one["epochs"] * len(one["trials"]) for one in rounds)
    return {
        "method": chosen,
        "terms": [term.to_json() for term in settings[chosen]],
        "candidates": len(settings),
        "trials": sum(len(one["trials"]) for one in rounds),
        "epochs": spent,
        "share": round(100 * spent / (2 * recipe.seeds * recipe.train.epochs), 1),
        "seconds": round(sum(one["seconds"] for each in rounds for one in each["trials"]), 2),
        "validation_images": validation_images,
        "rounds": rounds,
    }


def _folder(name: str) -> str:
    return name.replace(" ", "-").replace("=", "")

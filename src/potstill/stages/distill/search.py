"""`method: auto`: a short search on the validation images over method, temperature and weight.

Successive halving (arXiv:1502.07943): every candidate is trained for a few epochs, the better third goes on to a
longer training, and so on until one is left; each round costs about the same. The candidates are the settings that
published work and this project's own figures start from (docs/losses.md). What it cost is told, because a student that
was searched for had more tries than its control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.objectives.objective import Term
from potstill.stages.recipe import Recipe
from potstill.words import plural

KEPT = 3  # one of so many candidates goes on to the next round
SEED = 1000  # trials start from a seed that no figure is made from

Trial = Callable[[Sequence[Term], int, str], tuple[float, float]]  # terms, epochs, name -> validation %, seconds


@dataclass(frozen=True)
class Choice:
    """What a search found: the winner's name and terms, and the record of every trial."""

    name: str
    terms: tuple[Term, ...]
    record: dict[str, Any]

    @property
    def sentence(self) -> str:
        """What the report says of the search."""
        told = self.record
        return (
            f"The method was chosen by a short search on the {plural(told['validation_images'], 'validation image')}: "
            f"{plural(told['candidates'], 'setting')}, {plural(told['trials'], 'training')} of "
            f"{plural(told['epochs'], 'epoch')} altogether, "
            f"{told['share']:.0f} % of what control and students cost. {self.name} came first. "
            "The control was not searched for: it has no method, no temperature and no weight."
        )


def candidates(classes: int) -> dict[str, tuple[Term, ...]]:
    """Return the settings that are tried, by name, the plainest first: on a tie the plainer one wins."""

    def mix(loss: str, labels: float, weight: float, **options: float) -> tuple[Term, ...]:
        return Term(loss="cross_entropy", weight=labels), Term(loss=loss, weight=weight, options=options)

    found = {
        f"kd T={temperature:g} alpha={alpha:g}": mix("kd", alpha, 1 - alpha, temperature=temperature)
        for alpha in (0.5, 0.1)
        for temperature in (1.0, 2.0, 4.0)
    }
    found["hard_label"] = mix("hard_label", 0.5, 0.5)
    found["wttm gamma=0.2"] = mix("wttm", 1.0, 4.0, gamma=0.2)
    found |= {f"dist T={value:g}": mix("dist", 1.0, 2.0, temperature=value) for value in (1.0, 4.0)}
    if classes > 2:  # these three have nothing to compare where there are two
        found |= {f"ls_kd weight={weight:g}": mix("ls_kd", 0.1, weight, temperature=2.0) for weight in (1.0, 9.0)}
        found["dkd T=2 beta=2"] = mix("dkd", 1.0, 1.0, alpha=1.0, beta=2.0, temperature=2.0)
        found["dkd T=4 beta=8"] = mix("dkd", 1.0, 1.0, alpha=1.0, beta=8.0, temperature=4.0)
    return found


def rounds(count: int, budget: int, longest: int) -> list[tuple[int, int]]:
    """Return (candidates, epochs of each) for every round: the rounds share `budget` epochs, `longest` at most."""
    sizes = [count]
    while sizes[-1] > KEPT:
        sizes.append(-(-sizes[-1] // KEPT))
    return [(size, min(max(round(budget / len(sizes) / size), 1), longest)) for size in sizes]


def choose(recipe: Recipe, *, classes: int, validation_images: int, trial: Trial) -> Choice:
    """Return the terms that come first on validation, within about `objective.search` epochs of training.

    trial: trains a student with terms for some epochs and returns its validation accuracy and the seconds it took.
    """
    known = candidates(classes)
    budget = recipe.objective.search or 2 * recipe.train.epochs
    left, played = list(known), []
    for size, epochs in rounds(len(known), budget, recipe.train.epochs):
        left = left[:size]
        results = {name: trial(known[name], epochs, f"{epochs}-epochs/{_folder(name)}") for name in left}
        played.append(
            {
                "epochs": epochs,
                "trials": [
                    {"name": name, "validation_accuracy": round(accuracy, 3), "seconds": seconds}
                    for name, (accuracy, seconds) in results.items()
                ],
            }
        )
        left = sorted(left, key=lambda name: (-results[name][0], list(known).index(name)))
    spent = sum(one["epochs"] * len(one["trials"]) for one in played)
    record = {
        "method": left[0],
        "terms": [term.to_json() for term in known[left[0]]],
        "candidates": len(known),
        "trials": sum(len(one["trials"]) for one in played),
        "epochs": spent,
        "share": round(100 * spent / (2 * recipe.seeds * recipe.train.epochs), 1),
        "seconds": round(sum(one["seconds"] for each in played for one in each["trials"]), 2),
        "validation_images": validation_images,
        "rounds": played,
    }
    return Choice(left[0], known[left[0]], record)


def _folder(name: str) -> str:
    return name.replace(" ", "-").replace("=", "")

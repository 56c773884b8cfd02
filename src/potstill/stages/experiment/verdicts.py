"""Goals and statements of the lecture, held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.evaluation.statistics import mean_interval
from potstill.report.experiment import NOT_RUN
from potstill.stages.experiment.collect import measure
from potstill.stages.experiment.settings import ClaimConfig, ExperimentConfig, GoalConfig

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
MET, MISSED = "met", "missed"


def judged(experiment: ExperimentConfig, results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return goals (met or missed, with the distance) and claims (holds, contradicted or undecided).

    Those on results that are not there, because the knobs left them out, are "not measured".
    """
    return {
        "goals": [_goal(goal, results) for goal in experiment.goals],
        "claims": [_claim(claim, results) for claim in experiment.claims],
    }


def _goal(goal: GoalConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(results, goal.of, goal.measure)
    if not values:
        return {**goal.model_dump(mode="json"), "result": NOT_RUN}
    mean = float(np.mean(values))
    distance = goal.at_least - mean if goal.at_least is not None else mean - (goal.at_most or 0.0)
    distance = round(distance, 9)  # a mean of decimals that is the goal itself
    return {
        **goal.model_dump(mode="json"),
        "values": values,
        "mean": round(mean, 3),
        "distance": round(max(distance, 0.0), 3),
        "result": MET if distance <= 0 else MISSED,
    }


def _claim(claim: ClaimConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claim with the difference of its two results and its interval, by the seeds that both have, in pairs.

    One seed decides nothing.
    """
    first, second = (_values(results, name, claim.measure) for name in (claim.more, claim.than))
    count = min(len(first), len(second))
    if not count:
        return {**claim.model_dump(mode="json"), "result": NOT_RUN}
    difference = np.array(first[:count]) - np.array(second[:count])
    interval = mean_interval(difference)
    result = UNDECIDED
    if interval is not None:
        result = HOLDS if interval[0] > 0 else CONTRADICTED if interval[1] < 0 else UNDECIDED
    return {
        **claim.model_dump(mode="json"),
        "difference": round(float(difference.mean()), 3),
        "interval": None if interval is None else [round(bound, 3) for bound in interval],
        "seeds": count,
        "result": result,
    }


def _values(results: Mapping[str, Any], name: str, what: str) -> list[float]:
    return measure(results[name], what) if name in results else []

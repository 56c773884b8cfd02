"""The record of the search: an Optuna study in a journal file, one trial a candidate.

Other tools read it (optuna-dashboard, parameter importances), and a command that is started again goes on from it.
Several processes may write it: each candidate has one trial that counts.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.stages.shrink.costs import Costed

FILE = "trials.journal"
PARAMETERS = ("macs", "parameters", "bytes")


class Trials:
    """The trials of a run folder. A trial is running until it is pruned or trained to the end."""

    def __init__(self, folder: Path) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / FILE)))
            self._study = optuna.create_study(
                storage=storage, study_name="shrink", direction="maximize", load_if_exists=True
            )
        self._states = optuna.trial.TrialState

    def report(self, one: Costed, rung: int, accuracy: float, **facts: Any) -> None:
        """Record the validation accuracy of a candidate, in percent, at a rung of the search."""
        trial = self._trial(one)
        known = self._study.trials[trial.number]
        if known.state.is_finished() or rung in known.intermediate_values:
            return
        for key, value in facts.items():
            trial.set_user_attr(f"{key}:{rung}", value)
        trial.report(accuracy, step=rung)

    def finish(self, accuracies: Mapping[str, float], kept: set[str]) -> None:
        """End the running trials of candidates by name: those not in `kept` are pruned."""
        for name, accuracy in accuracies.items():
            number = self._number(name)
            if number is None or self._study.trials[number].state.is_finished():
                continue
            state = self._states.COMPLETE if name in kept else self._states.PRUNED
            with _quiet():
                self._study.tell(number, accuracy if name in kept else None, state=state)

    def _number(self, name: str) -> int | None:
        """Return the number of a candidate's trial, the first if two processes began one at once."""
        numbers = [one.number for one in self._study.trials if one.user_attrs.get("name") == name]
        return min(numbers, default=None)

    def _trial(self, one: Costed) -> Any:
        import optuna

        name = one.candidate.name
        if self._number(name) is None:
            self._begin(one)
        number = self._number(name)
        assert number is not None, "the trial was begun"
        return optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)

    def _begin(self, one: Costed) -> None:
        """Begin the trial of a candidate; end it at once if another process has begun one meanwhile."""
        with _quiet():
            self._study.enqueue_trial({key: getattr(one.cost, key) for key in PARAMETERS})
            trial = self._study.ask()
            for key in PARAMETERS:
                trial.suggest_int(key, 1, 10**12, log=True)
        trial.set_user_attr("candidate", one.candidate.to_json())
        trial.set_user_attr("name", one.candidate.name)
        if self._number(one.candidate.name) != trial.number:
            self._study.tell(trial, state=self._states.FAIL)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's remarks about experimental features and every trial from the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)

"""Exceptions for errors that a user can cause and fix.

Every such error is a `UserError`: complete sentences that name the path or key, what is wrong, why it matters and
what to type next. One error may carry several problems, so that all of them are reported at once. The command line
prints them and exits with status 2; a traceback is shown only for bugs in potstill.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """One or more problems that the user can fix; `problems` holds one message for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class ConfigError(UserError):
    """A recipe, flag or option is invalid."""


class DataError(UserError):
    """The images or their labels cannot be used as given."""


class Unanswered(DataError):
    """Some of several images have no answer; `answered` holds the results of the others."""

    def __init__(self, *problems: str, answered: Sequence[Any] = ()) -> None:
        super().__init__(*problems)
        self.answered = list(answered)


class ModelError(UserError):
    """A model, checkpoint or exported file cannot be used as requested."""


class RunError(UserError):
    """A run folder is in a state from which the command cannot continue."""


def missing(path: Path) -> str:
    """Return "There is no PATH.", with the most similar name in its folder."""
    near = did_you_mean(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
    return f"There is no {path}.{near}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest match in `known`, or an empty string if there is none."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""

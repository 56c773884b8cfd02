"""What a user did wrong, said in sentences.

Every error a user can cause is a `UserError`: complete sentences that name the path or key, what is wrong,
why it matters and what to type next. One error may carry several problems, because being told one mistake
at a time is a waste of the reader's day. The command line prints them and exits with status 2; a traceback
is shown only for mistakes of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One or more problems that the user can mend; `problems` holds a sentence (or a few) for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class ConfigError(UserError):
    """A recipe, flag or option is wrong."""


class DataError(UserError):
    """The images or their labels cannot be used as they are."""


class ModelError(UserError):
    """A model, checkpoint or exported file cannot be used as asked."""


class RunError(UserError):
    """A run folder is in a state that the command cannot go on from."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, or an empty string where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""

"""Whether the user asked for more: `--verbose` shows warnings of libraries, and where an error arose."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import traceback
import warnings
from collections.abc import Iterator

_loud: contextvars.ContextVar[bool] = contextvars.ContextVar("potstill_loud", default=False)


@contextlib.contextmanager
def loud(wanted: bool) -> Iterator[None]:
    """Show more inside the block, if that is wanted."""
    token = _loud.set(wanted)
    try:
        with warnings.catch_warnings():
            if wanted:
                warnings.simplefilter("default")
            yield
    finally:
        _loud.reset(token)


def is_loud() -> bool:
    """Whether `--verbose` was given."""
    return _loud.get()


def show_origin(error: BaseException) -> None:
    """With `--verbose`, write on standard error where in the code an error arose."""
    if is_loud():
        traceback.print_exception(error, file=sys.stderr)

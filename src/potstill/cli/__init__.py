"""The command line: parse, call `app`, show. Heavy imports stand inside the commands, so `--help` is instant."""

from __future__ import annotations

import sys
import warnings

from potstill import runtime
from potstill.cli import compress, export, learn, make, measure, road, use
from potstill.cli.common import app

__all__ = ["app", "compress", "export", "learn", "main", "make", "measure", "road", "use"]


def main() -> None:
    """Entry point of the `potstill` command."""
    runtime.set_environment()
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    app()

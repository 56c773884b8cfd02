"""The command line: parse, call `app`, show. Heavy imports stand inside the commands, so `--help` is instant."""

from __future__ import annotations

import sys
import warnings

from potstill.cli import road, use
from potstill.cli.common import app

__all__ = ["app", "main", "road", "use"]


def main() -> None:
    """Entry point of the `potstill` command."""
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    app()

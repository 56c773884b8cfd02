"""The command line: parse, call `app`, show. Heavy imports stand inside the commands, so `--help` is instant."""

from __future__ import annotations

import os
import sys
import warnings

from potstill.cli import compress, export, learn, make, road, use
from potstill.cli.common import app

__all__ = ["app", "compress", "export", "learn", "main", "make", "road", "use"]


def main() -> None:
    """Entry point of the `potstill` command."""
    _tune_threads()
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    app()


def _tune_threads() -> None:
    """Set what torch reads when it is imported, unless the user did.

    Threads that spin while they wait stall each other where cores are shared (a small step took 3 times as long on
    two shared cores); memory in huge pages halved the time of a step of 512 images.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

"""The command line: parse, call `app`, show. Heavy imports stand inside the commands, so `--help` is instant."""

from __future__ import annotations

import sys
import warnings

from potstill import runtime
from potstill.cli import bench, compress, distill, export, finetune, formats, selftrain, use
from potstill.cli.common import app

__all__ = ["app", "bench", "compress", "distill", "export", "finetune", "formats", "main", "selftrain", "use"]


def main() -> None:
    """Entry point of the `potstill` command."""
    runtime.set_environment()
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    app()

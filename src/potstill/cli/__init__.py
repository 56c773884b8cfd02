"""The command line: parse, call the public function of the same name, show its result.

Heavy imports stand inside the calls, so that `--help` is instant. Commands are listed in the order of the road.
"""

from __future__ import annotations

import signal
import sys
import warnings

from potstill import runtime
from potstill.cli.app import app as app_command
from potstill.cli.bench import bench
from potstill.cli.check import check
from potstill.cli.clean import clean
from potstill.cli.command import Command
from potstill.cli.common import app, echo
from potstill.cli.compare import compare
from potstill.cli.debug import debug
from potstill.cli.demo import demo
from potstill.cli.distill import distill
from potstill.cli.evaluate import evaluate
from potstill.cli.explain import explain
from potstill.cli.export import export
from potstill.cli.finetune import finetune
from potstill.cli.formats import formats
from potstill.cli.label import label
from potstill.cli.models import layers, models
from potstill.cli.predict import predict
from potstill.cli.prune import prune
from potstill.cli.quantize import quantize
from potstill.cli.recipes import recipes
from potstill.cli.report import report
from potstill.cli.run import run
from potstill.cli.selftrain import selftrain
from potstill.cli.shrink import shrink

__all__ = ["app", "main"]

ROAD = {
    "Start here": (demo, shrink),
    "Check images": (check,),
    "Train": (finetune, selftrain, label, distill, recipes, run, compare, explain),
    "Compress and export": (prune, quantize, export),
    "Use": (report, evaluate, predict, app_command),
    "Inspect models": (models, layers, formats, bench),
    "Maintenance": (clean, debug),
}
"""The commands by what they are for, in the order of the road: so the help lists them."""

for group, commands in ROAD.items():
    for command in commands:
        # The numbers of `formats` may be negative: -7.625 is no option.
        settings = {"ignore_unknown_options": command is formats}
        app.command(cls=Command, rich_help_panel=group, context_settings=settings)(command)


def main() -> None:
    """Entry point of the `potstill` command."""
    runtime.set_environment()
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    try:
        app(prog_name="potstill")  # also as python -m potstill: examples and usage name one command
    except KeyboardInterrupt:  # before the command listens, or after it has ended
        echo("\nStopped.", err=True)
        sys.exit(128 + signal.SIGINT)

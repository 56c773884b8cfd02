"""The command that shows the whole road in a minute: demo."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import Json, Out, Quiet, Workers


def demo(workers: Workers = None, out: Out = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Distill a tiny network on handwritten digits. Takes about a minute; needs no internet and no GPU."""
    call("demo", locals(), trains=True)

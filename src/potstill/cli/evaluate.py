"""The command that measures a model: evaluate."""

from __future__ import annotations

from potstill.cli.common import call
from potstill.cli.options import Data, Json, Limit, Model, Quiet, Split, Weights


def evaluate(
    model: Model,
    data: Data,
    weights: Weights = None,
    split: Split = "test",
    limit: Limit = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images."""
    call("evaluate", locals())

"""Using a model that exists: measure it on a data set, classify images, compare it with its teacher."""

from __future__ import annotations

from potstill.stages.inference.evaluate import evaluate
from potstill.stages.inference.predict import predict

__all__ = ["evaluate", "predict"]

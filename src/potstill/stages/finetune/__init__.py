"""Transfer learning: from somebody's big network to a model, or a teacher, for these images."""

from __future__ import annotations

from potstill.stages.finetune.run import finetune
from potstill.stages.finetune.settings import FinetuneConfig

__all__ = ["FinetuneConfig", "finetune"]

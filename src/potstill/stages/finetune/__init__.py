"""Transfer learning: fit a pretrained network to new images and classes."""

from __future__ import annotations

from potstill.stages.finetune.run import finetune
from potstill.stages.finetune.settings import FinetuneConfig

__all__ = ["FinetuneConfig", "finetune"]

"""The smallest model that does the job: `potstill shrink`."""

from potstill.stages.shrink.run import shrink
from potstill.stages.shrink.settings import Budgets, Pretrained, ShrinkConfig

__all__ = ["Budgets", "Pretrained", "ShrinkConfig", "shrink"]

"""potstill: from a folder of images to the smallest model that still does the job, and the proof that it does.

    import potstill

    run = potstill.distill("photos", teacher="builtin:resnet56-cifar", student="builtin:small-cnn", epochs=30)
    print(run.verdict.sentence)
    model = potstill.load(run.folder)
    model.predict("new.jpg").class_name

This file is the table of contents. What it names loads on first use, so that `import potstill` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from potstill._version import __version__

if TYPE_CHECKING:
    from potstill.api.answers import (
        BenchResult,
        Catalogue,
        CheckResult,
        Evaluation,
        Explanation,
        Layers,
        Likeness,
        NetworkCost,
        Prediction,
    )
    from potstill.api.app import app
    from potstill.api.compression import export, prune, quantize
    from potstill.api.experiments import ExperimentResult, Recipes, recipes
    from potstill.api.formats import Formats
    from potstill.api.model import Model, load
    from potstill.api.reporting import Reports, report
    from potstill.api.results import (
        CompareResult,
        CompressResult,
        FinetuneResult,
        LabelResult,
        ModelFigures,
        RunResult,
        SelftrainResult,
        ShrinkResult,
    )
    from potstill.api.runs import compare, demo, distill, run
    from potstill.api.shrinking import shrink
    from potstill.api.transfer import finetune, label, selftrain
    from potstill.api.using import bench, check, clean, debug, evaluate, explain, formats, layers, models, predict
    from potstill.display import set_verbosity
    from potstill.errors import UserError
    from potstill.tracking import set_tracking

__all__ = [
    "BenchResult",
    "Catalogue",
    "CheckResult",
    "CompareResult",
    "CompressResult",
    "Evaluation",
    "ExperimentResult",
    "Explanation",
    "Formats",
    "FinetuneResult",
    "LabelResult",
    "Layers",
    "Likeness",
    "Model",
    "NetworkCost",
    "ModelFigures",
    "Prediction",
    "Recipes",
    "Reports",
    "RunResult",
    "SelftrainResult",
    "ShrinkResult",
    "UserError",
    "__version__",
    "app",
    "bench",
    "check",
    "clean",
    "debug",
    "compare",
    "demo",
    "distill",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "formats",
    "label",
    "layers",
    "load",
    "models",
    "predict",
    "prune",
    "quantize",
    "recipes",
    "report",
    "run",
    "selftrain",
    "set_tracking",
    "set_verbosity",
    "shrink",
]

_CONTENTS = {
    "api.app": "app",
    "api.runs": "run demo distill compare",
    "api.experiments": "recipes ExperimentResult Recipes",
    "api.shrinking": "shrink",
    "api.transfer": "finetune selftrain label",
    "api.compression": "prune quantize export",
    "api.using": "predict evaluate explain check models layers formats bench clean debug",
    "api.reporting": "report Reports",
    "api.model": "load Model",
    "api.results": "RunResult CompareResult CompressResult FinetuneResult LabelResult ModelFigures SelftrainResult "
    "ShrinkResult",
    "api.formats": "Formats",
    "api.answers": "Prediction Evaluation Explanation Likeness CheckResult Catalogue Layers BenchResult CleanResult "
    "DebugResult NetworkCost",
    "display": "set_verbosity",
    "tracking": "set_tracking",
    "errors": "UserError",
}
_WHERE = {name: f"potstill.{module}" for module, names in _CONTENTS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'potstill' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Contents(ModuleType):
    """`potstill.models` is the verb, also after the import system has loaded the package `potstill.models`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _WHERE or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Contents

"""potstill: from a folder of images to the smallest model that still does the job, and the proof that it does.

The public functions load on first use, so that `import potstill` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.app import (
        compare,
        demo,
        distill,
        evaluate,
        explain,
        export,
        finetune,
        label,
        predict,
        prune,
        quantize,
        run,
        selftrain,
    )
    from potstill.errors import UserError

__version__ = "0.1.0"

_FUNCTIONS = (
    "compare",
    "demo",
    "distill",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "label",
    "predict",
    "prune",
    "quantize",
    "run",
    "selftrain",
)
_WHERE = dict.fromkeys(_FUNCTIONS, "potstill.app")
_WHERE["UserError"] = "potstill.errors"

__all__ = [
    "UserError",
    "compare",
    "demo",
    "distill",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "label",
    "predict",
    "prune",
    "quantize",
    "run",
    "selftrain",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'potstill' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)

"""potstill: from a folder of images to the smallest model that still does the job, and the proof that it does.

The public functions load on first use, so that `import potstill` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from potstill._version import __version__

if TYPE_CHECKING:
    from potstill.api import (
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
_WHERE = dict.fromkeys(_FUNCTIONS, "potstill.api")
_WHERE["UserError"] = "potstill.errors"

__all__ = [
    "UserError",
    "__version__",
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

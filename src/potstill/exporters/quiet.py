"""Silence around exporters, whose warnings and log lines are about their own inside."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Python warnings and log records below ERROR from the reader; leave logging as it was found."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers = list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        # `logging.warning(...)`, as onnxruntime writes it, installs a handler on the root logger.
        root.handlers[:] = handlers

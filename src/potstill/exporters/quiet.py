"""Suppression of warnings and log messages of exporters, which concern only their internals."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Python warnings and log records below ERROR; restore the logging configuration afterwards."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers = list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        # `logging.warning(...)`, as called by onnxruntime, installs a handler on the root logger.
        root.handlers[:] = handlers

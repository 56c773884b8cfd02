"""Pretrained weights from the hubs of timm and torchvision, with a clear error if there is no network."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeVar

from potstill.errors import ModelError

T = TypeVar("T")

TIMM, TORCHVISION = "huggingface.co", "download.pytorch.org"


def fetched(get: Callable[[], T], *, model: str, host: str) -> T:
    """Return the result of `get`, which downloads weights or finds them in its cache.

    Raises `ModelError` if the host cannot be reached and nothing is cached.
    """
    try:
        with _patience(host):
            return get()
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The pretrained weights of '{model}' could not be downloaded from {host} ({reason.rstrip('.')}). Connect "
            "to the network, or use a file of weights with --weights FILE."
        ) from None


@contextlib.contextmanager
def _patience(host: str) -> Iterator[None]:
    """Without a network, use only the cache: the client of the hub would retry for a minute."""
    from huggingface_hub import constants

    before, logger = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub")
    level = logger.level
    constants.HF_HUB_OFFLINE = before or not reachable(host)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logger.setLevel(level)


def reachable(host: str) -> bool:
    """Whether a host name can be resolved; assumed if there is a proxy."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False

"""Pretrained weights from the hubs of timm and torchvision, and one sentence where there is no network."""

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
    """Return what `get` downloads, or finds among the files of earlier downloads.

    Raises `ModelError` where the host cannot be reached and nothing was kept.
    """
    try:
        with _patience(host):
            return get()
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The pretrained weights of '{model}' could not be fetched from {host} ({reason.rstrip('.')}). Connect to "
            "the network, or give a file of weights with --weights FILE."
        ) from None


@contextlib.contextmanager
def _patience(host: str) -> Iterator[None]:
    """Without a network, look only at earlier downloads: the hub's client tries again and again for a minute."""
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
    """Tell whether a host has an address here; a proxy is trusted to know."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False

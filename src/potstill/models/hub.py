"""Pretrained weights from the hubs of timm and torchvision, with a clear error if there is no network."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeVar

from potstill.errors import ModelError
from potstill.offline import is_offline

T = TypeVar("T")

TIMM, TORCHVISION = "huggingface.co", "download.pytorch.org"


FLAGS = "--weights FILE; of a teacher or student --teacher-weights or --student-weights FILE"
"""How weights are given on the command line."""


def fetched(get: Callable[[], T], *, model: str, host: str) -> T:
    """Return the result of `get`, which downloads weights or finds them in its cache.

    Raises `ModelError` if the host cannot be reached and nothing is cached.
    """
    try:
        with _patience(host):
            return get()
    except OSError as error:
        if is_offline():
            raise ModelError(
                f"The pretrained weights of '{model}' are not in the cache, and --offline forbids to download them "
                f"from {host}. Leave --offline out once, or use a file of weights ({FLAGS})."
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The pretrained weights of '{model}' could not be downloaded from {host} ({reason.rstrip('.')}). Connect "
            f"to the network, or use a file of weights ({FLAGS})."
        ) from None


@contextlib.contextmanager
def _patience(host: str) -> Iterator[None]:
    """Without a network, or offline, use only the cache: the client of the hub would retry for a minute."""
    import torch.hub
    from huggingface_hub import constants

    before, logger = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub")
    level = logger.level
    download = torch.hub.download_url_to_file
    constants.HF_HUB_OFFLINE = before or is_offline() or not reachable(host)
    if is_offline():
        torch.hub.download_url_to_file = _forbidden
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        torch.hub.download_url_to_file = download
        logger.setLevel(level)


def _forbidden(*_: object, **__: object) -> None:
    raise OSError("--offline forbids to download")


def reachable(host: str) -> bool:
    """Whether a host name can be resolved; assumed if there is a proxy."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False

"""What the libraries below torch are told: how threads wait, and what becomes of memory that is freed."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}
"""What torch reads when it is imported.

Threads that spin while they wait stall each other where cores are shared (a small step took 3 times as long on two
shared cores); memory in huge pages halved the time of a step of 512 images.
"""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no more
_NEVER = 2**31 - 1


def set_environment() -> None:
    """Set `ENVIRONMENT`, but for what the user set; before torch is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@functools.lru_cache(maxsize=1)
def keep_freed() -> None:
    """Have the process keep memory that is freed, for the next step will ask for the same.

    By default glibc hands large blocks back to the system, which fills them with zeros, page by page, each time they
    are used anew: a twelfth of the time of a training step of ResNet-20 at batch 128 on two cores, two thirds where
    torch takes huge pages (THP_MEM_ALLOC_ENABLE). Does nothing where the C library has no such setting.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _NEVER)

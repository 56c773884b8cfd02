"""Settings of the libraries below torch: how idle threads wait, and how freed memory is kept."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}
"""Environment variables that torch reads when it is imported.

Threads that spin while they wait slow each other down on shared cores (a small step took 3 times as long on two
shared cores); memory in huge pages halved the time of a step of 512 images.
"""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc accepts no more
_NEVER = 2**31 - 1


def set_environment() -> None:
    """Set `ENVIRONMENT`, except for variables that the user set; must run before torch is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@functools.lru_cache(maxsize=1)
def keep_freed() -> None:
    """Make the process keep freed memory instead of returning it to the system: the next step allocates the same.

    By default glibc returns large blocks to the system, which zeroes them page by page each time they are used again:
    a twelfth of the time of a training step of ResNet-20 at batch 128 on two cores, two thirds when torch uses huge
    pages (THP_MEM_ALLOC_ENABLE). Does nothing if the C library has no such setting.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _NEVER)

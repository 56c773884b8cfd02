"""Settings of the libraries below torch: how idle threads wait, and how freed memory is kept."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
"""What torch reads from the environment when it is imported, of which `environment` chooses."""

_PATIENT, _SLEEPING = {"GOMP_SPINCOUNT": "10000"}, {"OMP_WAIT_POLICY": "PASSIVE"}
_LOAD, _SAMPLES, _BETWEEN = Path("/proc/loadavg"), 8, 0.002  # seconds
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc accepts no more
_NEVER = 2**31 - 1


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which torch trains fastest here, without those that the user set. given: all of them.

    Threads that wait for each other spin for some tenths of a millisecond where the cores are idle, which makes small
    steps up to 1.6 times as fast, and sleep at once where others use them, who would be held up: a step took twice as
    long (docs/log.md, 2026-11-30). Memory in huge pages halved the time of a step of 512 images.
    """
    waiting = {} if given.keys() & {*_PATIENT, *_SLEEPING} else _PATIENT if cores_are_idle() else _SLEEPING
    return {name: value for name, value in {**waiting, "THP_MEM_ALLOC_ENABLE": "1"}.items() if name not in given}


def cores_are_idle() -> bool:
    """Return whether nobody else uses the cores that this process may use; False where the system does not tell.

    Linux tells how many processes run at this moment; its load is that of the last minute, this process included.
    """
    others = 0
    try:
        for _ in range(_SAMPLES):
            others += int(_LOAD.read_text().split()[3].partition("/")[0]) - 1
            time.sleep(_BETWEEN)
        cores, mine = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    except (OSError, ValueError, IndexError, AttributeError):
        return False
    return cores - others / _SAMPLES > mine - 0.5


def set_environment() -> None:
    """Set the variables of `environment`; must run before torch is imported."""
    os.environ.update(environment())


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

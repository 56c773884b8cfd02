"""The device of this process and the process group: the only file that imports accelerate."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from potstill import distributed


def accelerator(*, parts_unused: bool = False) -> Accelerator:
    """Return the Accelerator of this process; under torchrun the first call initialises the process group."""
    on_cpu = distributed.world() > 1 and not torch.accelerator.is_available()
    return Accelerator(
        cpu=on_cpu,  # without it, accelerate does not use several processes on CPUs
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=parts_unused),
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),  # the others wait while one exports
        ],
    )


def init_process_group() -> None:
    """Initialise the process group if there are several processes: the first step of a command under torchrun."""
    if distributed.world() > 1:
        accelerator()


def device() -> torch.device:
    """Return the training device of this process."""
    return accelerator().device


def processor() -> str:
    """Return the name of the CPU, "AMD EPYC"; of its architecture where the system tells no more."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()

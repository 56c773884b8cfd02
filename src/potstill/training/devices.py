"""The device of this process and the process group: the only file that imports accelerate."""

from __future__ import annotations

import datetime

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from potstill import distributed


def accelerator(*, parts_unused: bool = False) -> Accelerator:
    """Return accelerate's view of this process; under torchrun the first call meets the others."""
    alone = distributed.world() > 1 and not torch.accelerator.is_available()
    return Accelerator(
        cpu=alone,  # without it, accelerate does not see processes that compute on CPUs
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=parts_unused),
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),  # the others wait while one exports
        ],
    )


def init_process_group() -> None:
    """Meet the other processes that torchrun started, if there are any: the first thing that a command does."""
    if distributed.world() > 1:
        accelerator()


def device() -> torch.device:
    """Return the device this process trains on."""
    return accelerator().device

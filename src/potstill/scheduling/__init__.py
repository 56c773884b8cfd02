"""Independent work, carried out one after the other, in local processes, or on a Ray cluster.

A `Cell` fills a folder and writes its done marker last. Markers are the only record of what is finished: a cell that
has one is never carried out again, whoever made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from potstill import artifacts, distributed
from potstill.errors import ConfigError
from potstill.scheduling.base import Cell, Scheduler, Serial
from potstill.scheduling.processes import Processes

__all__ = ["Cell", "Processes", "Scheduler", "Serial", "carried_out", "opened"]


@contextlib.contextmanager
def opened(*, workers: int | None = None, ray: str | None = None, gpus: float | None = None) -> Iterator[Scheduler]:
    """Yield the scheduler of a command, which ends with the block.

    workers: local processes of one thread each; None or 1 works in this process. ray: "auto" for the cluster of this
    machine, or the address HOST:PORT of one. gpus: share of a GPU that each cell on Ray needs.
    Raises `ConfigError` for contradictory or impossible values, and `RunError` if there is no such cluster.
    """
    check(workers, ray, gpus)
    if ray is not None:
        from potstill.scheduling.on_ray import OnRay

        with OnRay(ray, gpus=gpus or 0.0) as scheduler:
            yield scheduler
    elif workers is not None and workers > 1:
        with Processes(workers) as scheduler:
            yield scheduler
    else:
        yield Serial()


def check(workers: int | None, ray: str | None, gpus: float | None) -> None:
    """Raise one `ConfigError` with all problems of these values."""
    problems = []
    if workers is not None and workers < 1:
        problems.append(f"--workers {workers} must be at least 1.")
    if workers is not None and ray is not None:
        problems.append("--workers starts processes here and --ray uses a cluster: give one of them.")
    if distributed.world() > 1 and (ray is not None or (workers or 1) > 1):
        problems.append("torchrun has started several processes already: leave out --workers and --ray, or torchrun.")
    if gpus is not None and ray is None:
        problems.append("--gpus is what a training takes of a Ray cluster: give --ray too.")
    if gpus is not None and not 0 <= gpus <= 16:
        problems.append(f"--gpus {gpus:g} must be between 0 and 16; 0.25 runs four trainings on a GPU.")
    if problems:
        raise ConfigError(*problems)


def carried_out(scheduler: Scheduler, cells: Sequence[Cell], title: str) -> list[Any]:
    """Return the results of cells, in their order. title: of the progress bar."""
    for cell in cells:
        artifacts.about_to_write(cell.place)  # its folders are recorded before another process writes there
        scheduler.submit(cell)
    return scheduler.wait(title)

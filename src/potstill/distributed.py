"""The processes of one command: ranks, barriers, broadcast and gather.

`torchrun --nproc-per-node N -m potstill ...` starts the same command N times. All ranks work on the same images,
each on its stripe (rows rank, rank + N, ...); only rank 0 writes files and prints. Work that cannot be divided is done
by rank 0, inside `alone`. Without torchrun there is one process, and these functions return at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")

_alone = False


def rank() -> int:
    """Return the rank of this process, 0 to world() - 1."""
    return int(os.environ.get("RANK", 0)) if world() > 1 else 0


def world() -> int:
    """Return the number of processes (world size); 1 inside `alone`."""
    return 1 if _alone else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process is rank 0, which writes files and prints."""
    return rank() == 0


def wait() -> None:
    """Block until every process has reached this call (a barrier)."""
    if world() > 1:
        from torch import distributed

        distributed.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Run the block in process 0 first, then in the others, which find the cache that process 0 wrote."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Act as a single process inside the block, which only process 0 enters."""
    global _alone
    assert is_main(), "only process 0 may enter alone()"
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def by_main(work: Callable[[], T]) -> T:
    """Return what `work` returns in process 0, which does it alone while the others wait; all must call it."""
    value: Any = None
    if is_main():
        with alone():
            value = work()
    return broadcast(value)


def gather(value: Any) -> list[Any]:
    """Return the `value` of every process, in the order of ranks; all must call it."""
    if world() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Return the `value` of process 0; all must call it."""
    return gather(value)[0]


def mean_in_place(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes; all must call it, with the same shapes."""
    if world() == 1:
        return
    from torch import distributed

    for tensor in tensors:
        distributed.all_reduce(tensor)
        tensor /= world()


def gather_rows(values: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """Return [count, ...]: the rows of all processes, each at its position; asserts exactly one per position."""
    import numpy as np

    parts = gather((values, positions))
    where = np.concatenate([position for _, position in parts])
    assert len(where) == count and np.array_equal(np.sort(where), np.arange(count)), "a row is missing or occurs twice"
    result = np.empty((count, *values.shape[1:]), values.dtype)
    result[where] = np.concatenate([rows for rows, _ in parts])
    return result

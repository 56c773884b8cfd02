"""The processes of one command: who am I, who writes, and how the others are told.

`torchrun --nproc-per-node N -m potstill ...` starts the same command N times. All do the same work on the same
images, each on its stripe (rows rank, rank + N, ...); process 0 alone writes and speaks. What cannot be shared out is
done by process 0, inside `alone`. Where nothing was started that way there is one process, and everything here costs
nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_alone = False


def rank() -> int:
    """Return the number of this process, 0 to world() - 1."""
    return int(os.environ.get("RANK", 0)) if world() > 1 else 0


def world() -> int:
    """Return how many processes work together here."""
    return 1 if _alone else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def wait() -> None:
    """Go on when every process has come here."""
    if world() > 1:
        from torch import distributed

        distributed.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Let process 0 through the block alone, then the others: it makes the cache that they find."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work as one process inside the block, which only process 0 enters."""
    global _alone
    assert is_main(), "only process 0 works alone"
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def gather(value: Any) -> list[Any]:
    """Return what every process gave, in the order of their ranks; all must call it."""
    if world() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * world()
    distributed.all_gather_object(found, value)
    return found


def broadcast(value: Any) -> Any:
    """Return what process 0 gave; all must call it."""
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
    """Return [count, ...]: the rows that all processes have, each at its position; asserts one for each position."""
    import numpy as np

    parts = gather((values, positions))
    where = np.concatenate([position for _, position in parts])
    assert len(where) == count and np.array_equal(np.sort(where), np.arange(count)), (
        "a row is missing or was done twice"
    )
    result = np.empty((count, *values.shape[1:]), values.dtype)
    result[where] = np.concatenate([rows for rows, _ in parts])
    return result

"""Work on many files in several processes, because Pillow decodes only one image at a time in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

WORTHWHILE = 400  # pieces of about a millisecond, below which starting processes costs more than it saves


def in_chunks(work: Callable[..., Any], pieces: Sequence[Any], size: int, *shared: Any) -> Iterator[Any]:
    """Yield `work(pieces[a:b], *shared)` for consecutive chunks of `size`, in order.

    work: a function of a module that is quick to import, because every process imports it anew. Runs in this
    process where there is one processor or little to do. The processes are joblib's: unlike those of
    `multiprocessing` they do not run the user's script a second time.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config

    chunks = [pieces[start : start + size] for start in range(0, len(pieces), size)]
    workers = min(cpu_count(), len(chunks))
    if workers < 2 or len(pieces) < WORTHWHILE:
        yield from (work(chunk, *shared) for chunk in chunks)
        return
    with parallel_config(backend="loky", idle_worker_timeout=5):
        yield from Parallel(n_jobs=workers, return_as="generator")(delayed(work)(c, *shared) for c in chunks)

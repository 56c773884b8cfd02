"""Work on many files in several processes, because Pillow decodes only one image at a time in one process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

WORTHWHILE = 1.0  # seconds of work below which starting processes costs more than it saves


def in_processes(work: Callable[..., Any], jobs: Iterable[tuple], *, seconds: float) -> Iterator[Any]:
    """Yield `work(*job)` for each job, in order.

    work: a function of a module that is quick to import, because every process imports it anew. seconds: a guess of
    what the work takes in one process; where that is little, it is done in this one.
    The processes are joblib's: unlike those of `multiprocessing` they do not run the user's script a second time.
    """
    if seconds < WORTHWHILE:
        yield from (work(*job) for job in jobs)
        return
    from joblib import Parallel, cpu_count, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    workers = min(cpu_count(), 1 + int(seconds / WORTHWHILE))
    with parallel_config(backend="loky"):
        results = Parallel(n_jobs=workers, return_as="generator")(delayed(work)(*job) for job in jobs)
        try:
            for result in results:  # noqa: UP028 (`yield from` would close `results` by itself)
                yield result
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tasks were cancelled, where the caller stopped early
                results.close()
            get_reusable_executor().shutdown(wait=True)  # nothing of it is left behind, even if we are killed later

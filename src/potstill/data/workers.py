"""Parallel work on many files in several processes, because Pillow decodes one image at a time per process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, cast

from potstill.errors import RunError

WORTHWHILE = 1.0  # seconds of work below which starting processes takes longer than it saves


def in_processes(work: Callable[..., Any], jobs: Iterable[tuple], *, seconds: float) -> Iterator[Any]:
    """Yield `work(*job)` for each job, in order.

    work: a function of a module that imports quickly, because every process imports it. seconds: estimated time of the
    work in one process; if it is short, the work is done in this process.
    Raises `RunError` if one of the processes is killed.
    The processes are joblib's: unlike those of `multiprocessing` they do not run the user's script a second time.
    """
    if seconds < WORTHWHILE:
        yield from (work(*job) for job in jobs)
        return
    from joblib import Parallel, cpu_count, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    workers = min(cpu_count(), 1 + int(seconds / WORTHWHILE))
    with parallel_config(backend="loky"):
        parallel = Parallel(n_jobs=workers, return_as="generator")
        results = cast("Generator[Any, None, None]", parallel(delayed(work)(*job) for job in jobs))
        try:
            for result in results:  # noqa: UP028 (`yield from` would close `results` by itself)
                yield result
        except TerminatedWorkerError:
            raise RunError(
                f"One of {workers} worker processes that read images was killed from outside, usually because memory "
                "ran out. What they had finished is kept. Run the same command again, with fewer processes if memory "
                "is short: LOKY_MAX_CPU_COUNT=1 in front of the command."
            ) from None
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about cancelled tasks, if the caller stopped early
                results.close()
            get_reusable_executor().shutdown(wait=True)  # so that no process outlives a later kill

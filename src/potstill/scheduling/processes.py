"""Cells in worker processes of this machine, one thread each."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from potstill import progress
from potstill.errors import RunError
from potstill.scheduling import worker
from potstill.scheduling.base import Cell
from potstill.words import plural

ORPHAN_SECONDS = 1.0  # how often a worker looks whether its parent is still there


class Processes:
    """Carries out cells, `count` at a time. The processes start with the first cell and end with the `with` block."""

    parallel = True

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._futures: list[concurrent.futures.Future[worker.Done]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:
                worker.terminated(list((self._pool._processes or {}).values()))  # they save a training in progress
            self._pool.shutdown(cancel_futures=True)

    def submit(self, cell: Cell) -> None:
        """Take a cell, which begins as soon as a process is free."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self.count, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
        self._futures.append(self._pool.submit(worker.carry_out, worker.sender(), cell))

    def wait(self, title: str) -> list[Any]:
        """Return the results of the submitted cells; show their notes."""
        futures, self._futures = self._futures, []
        try:
            with progress.task(title, total=len(futures)) as task:
                for future in concurrent.futures.as_completed(futures):
                    worker.unpacked([future.result()])  # a mistake ends the command, not after all cells
                    task.advance()
            return worker.unpacked([future.result() for future in futures])
        except BrokenProcessPool:
            self._pool = None
            raise RunError(
                f"One of {plural(self.count, 'worker process')} was killed from outside, usually because memory ran "
                "out. What was finished is kept. Run the same command again, with fewer --workers if memory is short."
            ) from None


def _begin(parent: int) -> None:
    """Prepare a worker: it ends when its parent does, also when that was killed, so that nobody writes twice."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

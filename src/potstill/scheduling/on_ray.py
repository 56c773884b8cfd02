"""Cells on a Ray cluster, whose machines see the same files under the same paths.

Ray decides where a cell runs, and starts it again elsewhere when its machine is lost; what the cell had saved in its
folder is resumed there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from potstill import progress
from potstill.errors import RunError
from potstill.scheduling import worker
from potstill.scheduling.base import Cell

RETRIES = 5  # starts of a cell whose machine or process is lost
CPUS = 1  # of a cell, which has one thread


class OnRay:
    """Carries out cells on the cluster at `address`: "auto" for the one of this machine, or HOST:PORT.

    gpus: what a cell takes of a GPU; 0.25 runs four on each. Raises `RunError` without Ray or without the cluster.
    """

    parallel = True

    def __init__(self, address: str, *, gpus: float = 0.0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise RunError("--ray needs the package ray: pip install 'potstill[ray]'.") from None
        self._ray, self._address, self._refs = ray, address, []
        self._connected = ray.is_initialized()
        if not self._connected:
            self._connect()
        self._check(gpus)
        remote = ray.remote(num_cpus=CPUS, num_gpus=gpus, max_retries=RETRIES)
        self._carry_out: Any = remote(worker.carry_out)

    def _connect(self) -> None:
        try:
            self._ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": worker.environment()},
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise RunError(
                f"There is no Ray cluster at {self._address} ({reason}). Start one with `ray start --head`, join the "
                "other machines with `ray start --address HOST:6379`, and type --ray auto on one of them."
            ) from None

    def _check(self, gpus: float) -> None:
        have = self._ray.cluster_resources().get("GPU", 0.0)
        if gpus > have:
            self.__exit__()
            raise RunError(
                f"--gpus {gpus:g}: the Ray cluster at {self._address} has {have:g} GPUs, so no training could start. "
                "Leave --gpus out, or add machines with GPUs."
            )

    @property
    def count(self) -> int:
        """The number of cells that the cluster's processors can carry out at a time."""
        return max(int(self._ray.cluster_resources().get("CPU", 1)) // CPUS, 1)

    def __enter__(self) -> OnRay:
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._refs:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference)
        if not self._connected:
            self._ray.shutdown()

    def submit(self, cell: Cell) -> None:
        """Take a cell, which begins as soon as the cluster has room."""
        self._refs.append(self._carry_out.remote(worker.sender(), cell))

    def wait(self, title: str) -> list[Any]:
        """Return the results of the submitted cells; show their notes."""
        references, pending = list(self._refs), list(self._refs)
        try:
            with progress.task(title, total=len(references)) as task:
                while pending:
                    ready, pending = self._ray.wait(pending, num_returns=1)
                    worker.unpacked(self._ray.get(ready))  # a mistake ends the command, not after all cells
                    task.advance()
            done = self._ray.get(references)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise RunError(
                f"A training on the Ray cluster was lost {RETRIES + 1} times ({type(error).__name__}: {reason}). What "
                "was finished is kept: run the same command again."
            ) from None
        self._refs = []
        return worker.unpacked(done)

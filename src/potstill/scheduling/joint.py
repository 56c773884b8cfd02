"""One command, started on several machines that share its run folder, without a cluster.

The process that was first offers its cells as JSON files in the folder `offers`; the others take some of them. A cell
that is being worked at is claimed, so that nobody else begins it, and its offer is removed when it is finished. Done
markers stay the only record of what is finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts, progress
from potstill.scheduling.base import Cell, Scheduler
from potstill.scheduling.claims import Claim, holder_of

OFFERS = "offers"
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Elsewhere:
    """The result of a cell that another process works at."""


@dataclass(frozen=True)
class Offer:
    """A cell that several processes may take. file: of the offer."""

    cell: Cell
    file: Path

    @property
    def place(self) -> Path:
        """The folder of the cell."""
        return self.cell.place

    @property
    def claim(self) -> Path:
        """The file that names who works at it."""
        return self.file.with_suffix(".claim")

    @property
    def free(self) -> bool:
        """Whether nobody works at it."""
        return holder_of(self.claim) is None

    def carry_out(self) -> Any:
        """Do the work of the cell, unless another process does: then return `Elsewhere`."""
        claim = Claim(self.claim)
        if claim.take() is not None:
            return Elsewhere()
        try:
            result = self.cell.carry_out()
            self.file.unlink(missing_ok=True)
            return result
        finally:
            claim.release()


class Joint:
    """Offers cells in `folder`, and carries out by another scheduler those that no other process takes.

    write: returns a cell as JSON, which `help_out` reads by code of the command.
    """

    def __init__(self, inner: Scheduler, folder: Path, write: Callable[[Any], dict[str, Any]]) -> None:
        self.inner, self.folder, self.write = inner, folder / OFFERS, write
        self.parallel, self.count = inner.parallel, inner.count
        self._offers: list[Offer] = []
        for file in self.folder.glob("*.json"):  # of a process that was killed
            file.unlink(missing_ok=True)

    def submit(self, cell: Cell) -> None:
        """Offer a cell."""
        file = self.folder / f"{hashlib.sha256(str(cell.place).encode()).hexdigest()[:16]}.json"
        artifacts.write_json(file, self.write(cell))
        self._offers.append(Offer(cell, file))

    def wait(self, title: str) -> list[Any]:
        """Return the results of the submitted cells, those of other processes included."""
        offers, self._offers = self._offers, []
        results: dict[Path, Any] = {}
        ready = offers
        while ready:
            results |= _done(self.inner, ready, title)
            ready = _freed([offer for offer in offers if offer.file not in results], title)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return [results[offer.file] for offer in offers]


def _freed(offers: list[Offer], title: str) -> list[Offer]:
    """Wait until no other process works at some of these cells, and return them; none if there are none."""
    with progress.task(f"{title}: by other processes", total=len(offers)) if offers else contextlib.nullcontext():
        while not (free := [offer for offer in offers if offer.free]) and offers:
            time.sleep(PAUSE_SECONDS)
    return free


def help_out(
    inner: Scheduler, folder: Path, read: Callable[[dict[str, Any]], Cell], going_on: Callable[[], bool]
) -> int:
    """Carry out cells that another process offers in `folder`, while it is `going_on`; return how many."""
    count = 0
    while going_on():
        files = sorted((folder / OFFERS).glob("*.json"))
        offers = [Offer(read(offer), file) for file in files if (offer := _offered(file)) is not None]
        free = [offer for offer in offers if offer.free][: inner.count]
        done = _done(inner, free, "Helping with trainings") if free else {}
        count += len(done)
        if not done:
            time.sleep(PAUSE_SECONDS)
    return count


def _offered(file: Path) -> dict[str, Any] | None:
    """Return the content of an offer; None if it was removed meanwhile."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _done(inner: Scheduler, offers: list[Offer], title: str) -> dict[Path, Any]:
    for offer in offers:
        inner.submit(offer)
    results = zip(offers, inner.wait(title), strict=True)
    return {offer.file: result for offer, result in results if not isinstance(result, Elsewhere)}

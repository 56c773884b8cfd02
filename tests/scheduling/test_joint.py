"""Several processes that share a folder: each cell is made once, by whoever is free; a process that ends leaves its."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import RunError
from potstill.scheduling import Serial, carried_out, claims
from potstill.scheduling.claims import Claim
from potstill.scheduling.joint import OFFERS, Joint, Offer, help_out
from potstill.stages.shrink import together


@dataclass(frozen=True)
class Note:
    """A cell that takes a moment and writes down who made it; made again, it only reads."""

    folder: str
    name: str
    seconds: float = 0.2

    @property
    def place(self) -> Path:
        return Path(self.folder) / self.name

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def carry_out(self) -> str:
        if not self.place.exists():
            time.sleep(self.seconds)
            with self.place.open("x") as file:
                file.write(threading.current_thread().name)
        return self.place.read_text()


def read(offer: dict[str, Any]) -> Note:
    return Note(**offer)


def test_each_cell_is_made_once_by_whoever_is_free(tmp_path: Path) -> None:
    cells, going_on = [Note(str(tmp_path), f"{number}") for number in range(8)], threading.Event()
    helped: list[int] = []

    def other() -> None:
        helped.append(help_out(Serial(), tmp_path, read, lambda: not going_on.is_set()))

    first = Joint(Serial(), tmp_path, Note.to_json)
    thread = threading.Thread(target=other, name="other", daemon=True)
    thread.start()
    try:
        made = carried_out(first, cells, "Cells")
    finally:
        going_on.set()
    thread.join(20)
    assert made == [cell.place.read_text() for cell in cells]
    assert made.count("other") == helped[0] > 0 and made.count("MainThread") > 0
    assert not (tmp_path / OFFERS).exists()


def test_a_cell_of_a_process_that_was_killed_is_made_by_the_first(tmp_path: Path) -> None:
    cell = Note(str(tmp_path), "one", seconds=0)
    first = Joint(Serial(), tmp_path, Note.to_json)
    first.submit(cell)
    (offer,) = (tmp_path / OFFERS).glob("*.json")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Offer(cell, offer).claim.write_text(json.dumps({**claims.identity(), "pid": ended.pid}))
    assert first.wait("Cells") == ["MainThread"]


def test_a_claim_of_another_machine_is_waited_for_until_it_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "STALE_SECONDS", 2.0)
    cell = Note(str(tmp_path), "one", seconds=0)
    first = Joint(Serial(), tmp_path, Note.to_json)
    first.submit(cell)
    (offer,) = (tmp_path / OFFERS).glob("*.json")
    claim = Offer(cell, offer).claim
    claim.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": ""}))
    began = time.monotonic()
    assert first.wait("Cells") == ["MainThread"] and time.monotonic() - began > 1
    assert socket.gethostname() != "elsewhere"


def test_a_claim_is_touched_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    claim = Claim(tmp_path / "x.claim")
    assert claim.take() is None and claim.held
    os.utime(claim.file, (0, 0))
    ends = time.monotonic() + 10
    while claim.file.stat().st_mtime == 0:
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert claims.holder_of(claim.file) == claims.identity()
    claim.release()
    assert claims.holder_of(claim.file) is None and not claim.held


def test_a_claim_that_was_taken_over_is_left_to_the_other(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "x.claim")
    assert claim.take() is None
    claim.file.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": ""}))
    claim.release()
    assert (claims.holder_of(claim.file) or {})["host"] == "elsewhere"


JOB = {"recipe": "{}", "folder": "", "stores": "", "kind": "student", "seed": 0, "bits": [8]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"folder": "/elsewhere/x"}, "lies in /elsewhere/x"),
        ({"stores": "../stores"}, r"lies in \.\./stores"),
        ({"seed": "first"}, "offers what is no training"),
        ({"kind": "other"}, "offers what is no training"),
    ],
)
def test_offers_that_would_write_elsewhere_are_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = {**JOB, "folder": "run/models/x", "stores": "run/stores"}
    assert together.read(whole, Path("run")).place == Path("run/models/x/distill/seed-0")
    with pytest.raises(RunError, match=sentence):
        together.read({**whole, **changes}, Path("run"))

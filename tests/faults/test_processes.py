"""Two processes, signals, killed workers, files that killed writers left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import potstill
from potstill import artifacts, interruption, progress
from potstill.cli.common import carry_out
from potstill.config import Config
from potstill.data.workers import in_processes
from potstill.errors import RunError
from potstill.interruption import Interrupted
from potstill.scheduling import claims
from potstill.stages import run_lock
from potstill.stages.stage import stage
from potstill.torch_context import threads
from tests.faults.damage import results, write_photos

DATA = {
    "source": "x",
    "fingerprint": "0",
    "classes": ["a"],
    "splits": {"train": 1, "validation": 1, "test": 1},
    "counts": {"train": [1], "validation": [1], "test": [1]},
    "image": {"channels": 1, "height": 8, "width": 8},
}


class Settings(Config):
    name: str = "x"


def work_in(folder: Path, work=lambda journal: {"data": DATA, "models": {}}) -> None:
    stage("prune", Settings(), folder, work, name="x")


def hold(folder: Path, **changes: object) -> Path:
    """Write the lock of a process into a folder that has a result: of this one, except for `changes`."""
    artifacts.write_text(folder / "prune.yaml", "name: x\n")
    artifacts.write_json(folder / "part" / artifacts.MANIFEST, {})
    (folder / run_lock.LOCK).write_text(json.dumps({**claims.identity(), **changes}))
    return folder


@pytest.fixture
def other() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


def test_a_folder_of_a_process_that_runs_is_refused(tmp_path: Path, other: subprocess.Popen) -> None:
    folder = hold(tmp_path / "run", pid=other.pid, started=claims.started(other.pid))
    with pytest.raises(RunError, match=f"Process {other.pid} works in .*run. Wait until it has finished"):
        work_in(folder)
    assert (folder / run_lock.LOCK).is_file()


def test_a_stale_lock_is_taken_over(tmp_path: Path, other: subprocess.Popen) -> None:
    """Of a process that ended, and of an earlier process with the number of one that runs."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    work_in(hold(tmp_path / "ended", pid=ended.pid))
    work_in(hold(tmp_path / "reused", pid=other.pid, started="another boot 1"))
    assert "left" in progress.display().notes[0] and not list(tmp_path.rglob(run_lock.LOCK))


def test_the_lock_of_another_machine_holds_while_it_is_touched(tmp_path: Path) -> None:
    folder = hold(tmp_path / "run", host="elsewhere", pid=1)
    with pytest.raises(RunError, match=r"Process 1 on elsewhere works in .* is free 120 seconds after its end"):
        work_in(folder)
    assert socket.gethostname() != "elsewhere"
    long_ago = time.time() - claims.STALE_SECONDS - 60
    os.utime(folder / run_lock.LOCK, (long_ago, long_ago))
    work_in(folder)
    assert not (folder / run_lock.LOCK).exists()


def test_a_new_folder_is_locked_with_its_first_file_and_left_without_a_lock(tmp_path: Path) -> None:
    folder, seen = tmp_path / "run", []

    def work(journal: object) -> dict:
        seen.append(folder.exists())
        artifacts.write_json(folder / "part" / artifacts.MANIFEST, {})
        seen.append((folder / run_lock.LOCK).is_file())
        with pytest.raises(RunError, match=f"Process {os.getpid()} works in"):
            work_in(folder)
        assert (folder / run_lock.LOCK).is_file(), "the refused call leaves the lock to the first"
        return {"data": DATA, "models": {}}

    work_in(folder, work)
    assert seen == [False, True] and not (folder / run_lock.LOCK).exists()


def test_a_second_start_does_not_remove_what_the_first_wrote(tmp_path: Path, other: subprocess.Popen) -> None:
    """Both began before there was a folder; the other one was first to write."""
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=f"Process {other.pid} works in"):
        work_in(folder, lambda journal: _filled_by(folder, other) or artifacts.write_json(folder / "more.json", {}))
    assert (folder / "theirs").read_text() == "kept"


def _filled_by(folder: Path, other: subprocess.Popen) -> None:
    folder.mkdir()
    (folder / "theirs").write_text("kept")
    (folder / run_lock.LOCK).write_text(
        json.dumps({**claims.identity(), "pid": other.pid, "started": claims.started(other.pid)})
    )


def test_temporary_files_of_killed_writers_are_removed_and_others_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = hold(tmp_path / "run", pid=ended.pid)
    dead, mine = folder / "part" / f".model.0-{ended.pid}.tmp", folder / f".other.0-{os.getpid()}.tmp"
    dead.touch()
    mine.touch()
    work_in(folder)
    assert not dead.exists() and mine.exists()


def test_a_folder_whose_first_writer_was_killed_is_free(tmp_path: Path) -> None:
    """The record of the settings was written under its temporary name, and nothing else."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".prune.yaml.0-{ended.pid}.tmp").write_text("name:")
    work_in(folder)
    assert {entry.name for entry in folder.iterdir()} >= {"summary.json", "manifest.json"}
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_waits_for_the_end_of_the_step(number: signal.Signals) -> None:
    steps = []
    with interruption.handled(), pytest.raises(Interrupted) as caught, interruption.deferred() as stop:
        for step in range(3):
            os.kill(os.getpid(), number)
            steps.append(step)
            if (waiting := stop()) is not None:
                raise Interrupted(waiting, "saved")
    assert steps == [0] and (caught.value.number, caught.value.saved) == (number, "saved")


def test_a_second_signal_stops_at_once_and_a_last_one_is_not_lost() -> None:
    with interruption.handled():
        with pytest.raises(Interrupted), interruption.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second signal did not stop")
        with pytest.raises(Interrupted) as caught, interruption.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_interruption_that_a_library_replaced_is_still_one(capsys: pytest.CaptureFixture[str]) -> None:
    """As torch does, which then says that it could not determine the shape of an object."""

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    with pytest.raises(typer.Exit) as caught:
        carry_out(work, quiet=True, as_json=False)
    assert caught.value.exit_code == 143 and "Stopped. What was finished is kept." in capsys.readouterr().err
    with pytest.raises(ValueError, match="another"):
        carry_out(lambda: int("another"), quiet=True, as_json=False)


def _killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_killed_worker_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)  # with one core the work would be done, and killed, right here
    with pytest.raises(RunError, match="worker processes that read images was killed"):
        list(in_processes(_killed, [(number,) for number in range(8)], seconds=9.0))
    assert list(in_processes(abs, [(-1,), (-2,)], seconds=9.0)) == [1, 2]


# The command, with a real SIGTERM at a fixed epoch: one from outside may come after the 200 short epochs have ended.
STOPPED_AFTER_THREE_EPOCHS = """
import os, signal
from potstill.cli import main
from potstill.training.loop import TrainingLoop
end_epoch = TrainingLoop.end_epoch
def stopped(run):
    text = end_epoch(run)
    if len(run.rows) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return text
TrainingLoop.end_epoch = stopped
main()
"""


@pytest.mark.slow
def test_a_stopped_command_saves_says_so_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run, settings = write_photos(tmp_path / "photos"), tmp_path / "run", {"from_scratch": True, "epochs": 200}
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    words = f"finetune {photos} --model builtin:mlp --from-scratch --epochs 200 --out {run}".split()
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED_AFTER_THREE_EPOCHS, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    text = stopped.stderr
    assert stopped.returncode == 143, text
    assert "is saved at step 3 of 200" in text and "Resume with the same command" in text
    assert len(list(run.rglob(artifacts.CHECKPOINT))) == 1 and not list(run.rglob(".*"))
    with threads(1):
        potstill.finetune(photos, model="builtin:mlp", out=run, **settings)
        potstill.finetune(photos, model="builtin:mlp", out=tmp_path / "straight", **settings)
    assert any(": resuming at step" in note for note in progress.display().notes)
    assert results(run) == results(tmp_path / "straight") and results(run)

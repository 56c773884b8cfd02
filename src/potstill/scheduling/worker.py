"""A cell in another process: what is sent there, and what comes back."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import interruption, own_code, progress, runtime
from potstill.errors import RunError, UserError
from potstill.interruption import Interrupted
from potstill.scheduling.base import Cell
from potstill.torch_context import threads

OURS = "POTSTILL_"  # prefix of environment variables that workers share


@dataclass(frozen=True)
class Done:
    """What comes back: the result of a cell and the notes shown meanwhile, or the problems of a user's mistake."""

    result: Any
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sender:
    """What a cell needs of the process that sends it: its working folder, our environment, Python files it may run."""

    cwd: str
    environment: dict[str, str]
    code: tuple[str, ...]


def sender() -> Sender:
    """Return what cells need of this process."""
    return Sender(str(Path.cwd()), environment(), tuple(str(file) for file in own_code.allowed()))


def environment() -> dict[str, str]:
    """Return our environment variables, and those that torch reads when a worker imports it."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    torchs = {name: os.environ[name] for name in runtime.VARIABLES if name in os.environ}
    return {**runtime.environment(), **torchs, **ours}


def carry_out(sent_by: Sender, cell: Cell) -> Done:
    """Carry out a cell with one thread."""
    os.environ.update(sent_by.environment)
    try:
        os.chdir(sent_by.cwd)
    except OSError as error:
        return Done(None, (), (_unshared(sent_by.cwd, error),))
    runtime.keep_freed()
    with progress.use(progress.Display()), progress.recorded() as notes, threads(1), own_code.allowing(*sent_by.code):
        try:
            with interruption.handled():
                return Done(cell.carry_out(), tuple(notes))
        except UserError as error:
            return Done(None, tuple(notes), tuple(error.problems))
        except Interrupted as stop:
            os._exit(128 + stop.number)  # what was done is saved; no other cell is begun


def _unshared(cwd: str, error: OSError) -> str:
    return (
        f"A worker on {os.uname().nodename} has no folder {cwd} ({error.strerror}). All machines must see the working "
        "folder, the images and the run folder under the same paths: start the command on a shared file system."
    )


def unpacked(done: list[Done]) -> list[Any]:
    """Return the results; show the notes, each once, and raise the mistakes of all cells as one `UserError`."""
    for sentence in dict.fromkeys(sentence for each in done for sentence in each.notes):
        progress.note(sentence)
    if problems := dict.fromkeys(problem for each in done for problem in each.problems):
        raise RunError(*problems)
    return [each.result for each in done]


def terminated(processes: Any) -> None:
    """Ask processes to save and stop."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)

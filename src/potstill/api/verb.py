"""What every verb does around its work: show progress where nobody does yet, and refuse torchrun where it must."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from potstill import artifacts, config, display, distributed, names
from potstill.errors import UserError
from potstill.own_code import allows_own_code
from potstill.stages.run_folder import check_writable_if_unfinished, differences, has_results, record_name
from potstill.training.devices import init_process_group

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=config.Config)


def verb(work: Callable[P, R]) -> Callable[P, R]:
    """Show progress and notes while `work` runs, unless its caller shows them; allow the code that its caller names."""

    @functools.wraps(work)
    def shown(*args: P.args, **keywords: P.kwargs) -> R:
        with display.shown():
            try:
                return work(*args, **keywords)
            except OSError as error:
                if error.errno == errno.ENOSPC and (full := artifacts.disk_error(error, error.filename or "a file")):
                    raise full from error
                raise

    return allows_own_code(shown)


def one_process(work: Callable[P, R]) -> Callable[P, R]:
    """Raise `UserError` instead of working where torchrun started several processes."""

    @functools.wraps(work)
    def alone(*args: P.args, **keywords: P.kwargs) -> R:
        if distributed.world() > 1:
            raise UserError(
                f"{work.__name__} works in one process. Start it without torchrun. What is shared out among "
                "processes: run, distill, demo, finetune, selftrain, label, evaluate and quantize --mode qat."
            )
        return work(*args, **keywords)

    return alone


def built(kind: type[C], settings: dict[str, Any]) -> C:
    """Return the settings of a verb, checked."""
    return config.build(kind, settings, origin="this command")


def new_folder(name: str, kind: str, settings: config.Config, out: str | Path | None) -> Path:
    """Return `out`, or the first of runs/NAME, runs/NAME-2, ... that is free or holds this work unfinished.

    kind: of the work, as `stages.stage` knows it. Raises `RunError` if an unfinished folder cannot be written to.
    """
    if out is not None:
        check_writable_if_unfinished(Path(out))
        return Path(out)
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        file = folder / record_name(kind)
        if file.is_file() and artifacts.finished(folder) is None:
            if not has_results(folder) or not differences(file, settings):
                return folder
        number += 1


def shared_folder(name: str, kind: str, settings: config.Config, out: str | Path | None) -> Path:
    """Return `new_folder`, the same in all processes of torchrun, which meet here first."""
    init_process_group()
    return Path(distributed.broadcast(str(new_folder(name, kind, settings, out))))


def last_name(path: str | Path) -> str:
    """Return what a path or a model's name is called, fit for the name of a folder."""
    return names.fitting(Path(str(path).rpartition(":")[2]).resolve().name)

"""The frame of every stage: claim the folder, resume or do the work, write summary.json and the manifest last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill import artifacts, distributed, progress
from potstill.config import Config
from potstill.progress import parts
from potstill.report import write_report
from potstill.stages import summary
from potstill.stages.images_record import ImagesRecord
from potstill.stages.run_folder import (
    JOURNAL,
    Journal,
    check_free,
    check_writable_if_unfinished,
    claimed,
    record_name,
    reopened,
)
from potstill.stages.run_lock import locked

SUMMARY = "summary.json"

Work = Callable[[Journal], dict[str, Any] | None]


def stage(
    kind: str,
    config: Config,
    folder: Path,
    work: Work,
    *,
    name: str,
    command: str = "",
    tables: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Return the summary of a stage (docs/summary.md), running its work in `folder` unless that is finished.

    kind: distill, compare, selftrain, finetune, label, prune, quantize, export or shrink. name: of the result. work:
    writes the files and returns the stage's own part of the summary; it resumes interrupted calls, and times its parts
    with the journal. tables: writes more files from the finished summary, besides the report.

    Under torchrun all processes must call it; it returns {} where `work` returns None. Raises `RunError` if the folder
    has other contents or cannot be written to, another process works in it, or the images changed since it was made.
    """
    check_writable_if_unfinished(folder)
    with parts.counted(), progress.recorded() as notes, locked(folder, now=(folder / record_name(kind)).is_file()):
        _set_damage_aside(folder, kind)
        check_free(folder, config, kind)
        images = ImagesRecord(folder, command)
        if artifacts.finished(folder) is not None:
            images.compare()
            if not reopened(folder, config, kind):
                return artifacts.read_json(folder / SUMMARY)
        distributed.wait()  # all processes have checked the folder before one writes
        with claimed(folder, config, kind), images.watching():
            journal = Journal(folder, notes)
            own = work(journal)
            if own is None or not distributed.is_main():
                return {}
            result = summary.header(kind, name, command) | {"recipe": config.to_json()} | own
            result["stages"], result["seconds"] = journal.stages, journal.seconds
            result["notes"] = list(dict.fromkeys([*journal.notes, *own.get("notes", [])]))
            summary.check(result)
            artifacts.write_json(folder / SUMMARY, result)
            if tables is not None:
                tables(folder)
            write_report(folder)
            artifacts.finish(folder, {"kind": kind, "recipe": artifacts.fingerprint(config.to_json())})
    return result


def _set_damage_aside(folder: Path, kind: str) -> None:
    """Set aside what is damaged in the parts of a finished run, so that these parts are made again."""
    if (folder / artifacts.MANIFEST).is_file() and (folder / record_name(kind)).is_file():
        parts = sorted(file.parent for file in folder.rglob(artifacts.MANIFEST) if file.parent != folder)
        damaged = [part for part in parts if not artifacts.keep_whole(part)]
        if artifacts.keep_whole(folder) and damaged and distributed.is_main():
            (folder / artifacts.MANIFEST).unlink()  # the parts below are made again, and then the summary
        between = {place for part in damaged for place in part.parents if folder in place.parents}
        stages = [place for place in between if (place / JOURNAL).is_file()]  # such as the export of a search
        for place in stages if distributed.is_main() else ():
            (place / artifacts.MANIFEST).unlink(missing_ok=True)
        distributed.wait()

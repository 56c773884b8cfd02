"""The frame of every stage: claim the folder, resume or do the work, write summary.json and the manifest last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill import artifacts, distributed, progress
from potstill.config import Config
from potstill.stages import summary
from potstill.stages.run_folder import Journal, check_free, claimed

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
    report: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Return the summary of a stage (docs/summary.md), running its work in `folder` unless that is finished.

    kind: distill, compare, selftrain, finetune, label, prune, quantize or export. name: of the result. work: writes the
    files and returns the stage's own part of the summary; it resumes interrupted calls, and times its parts with the
    journal. report: writes the report from the finished summary.

    Under torchrun all processes must call it; it returns {} where `work` returns None. Raises `RunError` if the folder
    has other contents.
    """
    with progress.recorded() as notes:
        check_free(folder, config, kind)
        if artifacts.finished(folder) is not None:
            return artifacts.read_json(folder / SUMMARY)
        distributed.wait()  # all processes have checked the folder before one writes
        with claimed(folder, config, kind):
            journal = Journal(folder, notes)
            own = work(journal)
            if own is None or not distributed.is_main():
                return {}
            result = summary.header(kind, name, command) | {"recipe": config.to_json()} | own
            result["stages"], result["seconds"] = journal.stages, journal.seconds
            result["notes"] = list(dict.fromkeys([*journal.notes, *own.get("notes", [])]))
            summary.check(result)
            artifacts.write_json(folder / SUMMARY, result)
            if report is not None:
                report(folder)
            artifacts.finish(folder, {"kind": kind, "recipe": artifacts.fingerprint(config.to_json())})
    return result

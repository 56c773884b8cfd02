"""A table of the usable images; the user's own files are never changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from potstill.data.checks import Report
from potstill.data.csv_files import write_csv
from potstill.data.formats.sources import Files
from potstill.data.manifest import SPLITS, UNLABELLED
from potstill.errors import DataError
from potstill.output_files import check_outputs


def fix(report: Report, out: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Write the images that no finding leaves out to a CSV of path, label, split and group; return the counts.

    Left out are unreadable images, all but one of exact copies, every copy of images with conflicting labels, and
    copies of test or validation images; test and validation images only if they conflict or are unreadable.
    Paths are relative to the folder of `out`. force: replace an existing file. Raises like `kept_rows`, and `RunError`
    if the file exists.
    """
    out, seen = Path(out), report.survey
    check_outputs({"--fix": out}, force=force)
    kept = kept_rows(report, out)
    columns = ["path", "label", "split"] + (["group"] if seen.groups is not None else [])
    write_csv(out, columns, (_row(report, row, out.absolute().parent) for row in kept))
    return {
        "out": str(out),
        "kept": len(kept),
        "dropped": {finding.code: len(finding.drop) for finding in report.findings if finding.drop},
    }


def kept_rows(report: Report, out: Path) -> list[int]:
    """Return the rows that no finding leaves out; raise `DataError` if they cannot be listed, or there are none."""
    _refuse(report)
    dropped = {row for finding in report.findings for row in finding.drop}
    kept = [row for row in range(len(report.survey)) if row not in dropped]
    if not kept:
        raise DataError(f"No image of {report.survey.root} would be left, so {out} was not written.")
    return kept


def _refuse(report: Report) -> None:
    seen = report.survey
    if not isinstance(seen.source, Files):
        raise DataError(
            f"{seen.root} is an archive or an array, and --fix lists files. Unpack it into a folder, or leave the "
            "images out when the archive is created."
        )
    if seen.refusals:
        raise DataError(f"{seen.root} cannot be listed because its layout is not understood. {seen.refusals[0]}")


def _row(report: Report, row: int, folder: Path) -> list[str]:
    """Return path, label, split and, if images are grouped, group of a row of the survey."""
    seen, source = report.survey, report.survey.source
    assert isinstance(source, Files), "_refuse has checked it"
    path = os.path.relpath(Path(source.path(row)).absolute(), folder)
    label = "" if seen.label[row] == UNLABELLED else seen.classes[seen.label[row]]
    group = [] if seen.groups is None else [seen.groups[row].replace("\0", "")]
    return [Path(path).as_posix(), label, SPLITS[seen.split[row]], *group]

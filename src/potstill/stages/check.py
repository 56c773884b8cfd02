"""`potstill check`: the findings about a data set as plain values, and files written on request.

Only the parts for augmentations import torch, so that checking cached images is fast.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngInfo

from potstill.artifacts import atomic
from potstill.data.checks import Finding, Report, examine
from potstill.data.checks.fix import fix as write_fixed
from potstill.data.checks.fix import kept_rows
from potstill.data.manifest import Manifest
from potstill.output_files import SOFTWARE, check_outputs
from potstill.report.checks import write_page
from potstill.words import percent, plural

_SHEET_ROWS = 12


def check(
    path: str,
    *,
    group: str | None = None,
    html: str | Path | None = None,
    fix: str | Path | None = None,
    augment: Any = None,
    sheet: str | Path = "augmented.png",
    probe: bool = False,
    label_errors: str | Path | None = None,
    strict: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Return the findings about the images at `path`: counts, "worst" severity, and a list of findings.

    group: which images belong together (docs/data.md). html: a page to write. fix: a CSV to write, of the images that
    no finding excludes. augment: a policy, whose views of some images are written to `sheet`. probe: also measure which
    operations change the labels. label_errors: a CSV to write, of the labels that look wrong.
    strict: whether errors make the command fail. force: replace existing files that potstill did not write. Raises
    `DataError` if there are no images, `RunError` if a file would be overwritten.
    """
    drawn = None if augment is None else sheet
    check_outputs({"--html": html, "--fix": fix, "--sheet": drawn, "--label-errors": label_errors}, force=force)
    report = examine(_digits() if path == "digits" else path, group=group)
    if fix is not None:
        kept_rows(report, Path(fix))  # refuses before any file is written
    if label_errors is not None:
        report = with_label_errors(report, path, Path(label_errors), group)
    result = {**report.to_json(), "strict": strict}
    if probe:
        result["probe"] = probed(path)
    if augment is not None:
        result["sheet"] = write_sheet(path, augment, sheet)
    if fix is not None:
        result["fixed"] = write_fixed(report, fix, force=force)
    if html is not None:
        write_page(report, html)
        result["html"] = str(html)
    return result


def with_label_errors(report: Report, path: str, table: Path, group: str | None) -> Report:
    """Return the report with a finding about labels that look wrong, which are written to a table."""
    from potstill.stages.label_check import suspicious_labels

    found = suspicious_labels(path, table, group=group)
    judged = found["all"]
    if "suspicious" not in judged:
        text = (
            f"Wrong labels cannot be estimated: the classifier that would judge them is right on only "
            f"{percent(judged['accuracy'])} of {plural(judged['images'], 'image')}."
        )
        return report.with_finding(Finding("label-errors", "info", 0, text, "A trained teacher judges better."))
    row_of = {name: row for row, name in enumerate(report.survey.paths)}
    low, high = judged["interval"]
    test = found["splits"].get("test", {})
    of_test = f"; of the test split {percent(test['share'])}" if "share" in test else ""
    text = (
        f"About {percent(judged['share'])} of the labels look wrong ({plural(judged['suspicious'], 'image')}; 95 % "
        f"interval {low:.1f} to {high:.1f}{of_test})."
    )
    advice = (
        f"Look at them: {table}. Fill in the column label where the recorded one is wrong (selftrain --corrections)."
    )
    rows = [[row_of[name]] for name in found["rows"] if name in row_of]
    severity = "warning" if judged["suspicious"] else "info"
    return report.with_finding(Finding("label-errors", severity, judged["suspicious"], text, advice, rows=rows))


def _digits() -> Manifest:
    from potstill.stages.dataset import digits

    return digits()


def write_sheet(path: str, augment: Any, sheet: str | Path) -> str:
    """Write a contact sheet of a policy's views of some images of all classes; return its path."""
    from potstill.data.augment.sheet import contact_sheet
    from potstill.stages import dataset
    from potstill.stages.recipe import DataConfig

    config = DataConfig(path=path)
    manifest = dataset.read(config)
    few = manifest.select(_spread(manifest))
    data = dataset.prepare(config, manifest=few)
    view = data.loader(augment=augment).view
    marked = PngInfo()
    marked.add_text(*SOFTWARE)
    with atomic(Path(sheet)) as temporary:
        contact_sheet(data.pixels, view, np.arange(len(few))).save(temporary, format="PNG", pnginfo=marked)
    return str(sheet)


def _spread(manifest: Manifest) -> np.ndarray:
    """Return a few train rows, the classes alternating."""
    rows = manifest.rows("train")
    label = manifest.label[rows]
    turn = np.zeros(len(rows), dtype=int)
    for value in np.unique(label):
        turn[label == value] = np.arange((label == value).sum())
    return rows[np.lexsort((label, turn))[:_SHEET_ROWS]]


def probed(path: str) -> list[dict[str, Any]]:
    """Return the loss of a linear probe's accuracy on these images for each augmentation operation."""
    from potstill.data.augment.probe import probe_augment
    from potstill.stages import dataset
    from potstill.stages.recipe import DataConfig

    data = dataset.prepare(DataConfig(path=path))
    return [dataclasses.asdict(effect) for effect in probe_augment(data.manifest, data.pixels, size=data.crop)]

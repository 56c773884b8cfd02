"""Tables of pseudo-labels as CSV files, and reading them back with labels that were filled in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from potstill.data.csv_files import numbered_records, rows_with, write_csv
from potstill.data.manifest import Manifest
from potstill.errors import DataError, did_you_mean
from potstill.progress import note
from potstill.stages.selftrain.selection import STATES, Selection
from potstill.words import plural

COLUMNS = ("path", "label", "predicted", "confidence", "disagreement", "state")


def write_table(
    file: Path, manifest: Manifest, pool: np.ndarray, selection: Selection, disagreement: np.ndarray, rows: np.ndarray
) -> None:
    """Write a CSV of pool images; the column `label` is empty, to be filled in where `predicted` is wrong.

    rows: indices into `pool`, `selection` and `disagreement`, in the order to be written.
    """

    def row(i: int) -> list[str]:
        name = manifest.classes[selection.predicted[i]]
        figures = f"{selection.confidence[i]:.4f}", f"{disagreement[i]:.4f}"
        return [manifest.name(int(pool[i])), "", name, *figures, STATES[selection.state[i]]]

    write_csv(file, COLUMNS, map(row, rows.tolist()))


def most_informative(probability: np.ndarray, disagreement: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` most informative images to label: of high entropy and disagreement.

    probability: float [N, K]. The score is the normalised entropy (0..1) plus the disagreement (arXiv:1112.5745
    separates the two); the predicted classes alternate.
    """
    entropy = -(probability * np.log(np.clip(probability, 1e-12, 1))).sum(1) / np.log(probability.shape[1])
    score, predicted = entropy + disagreement, probability.argmax(1)
    turn = np.zeros(len(score), np.int64)
    order = np.argsort(-score, kind="stable")
    for number in range(probability.shape[1]):
        of_class = order[predicted[order] == number]
        turn[of_class] = np.arange(len(of_class))
    return np.lexsort((-score, turn))[:count]


def corrected(manifest: Manifest, file: Path) -> Manifest:
    """Return the manifest with the labels that were filled in, of any image; raise `DataError` with wrong rows."""
    filled = _filled(file)
    row_of = {manifest.name(row): row for row in range(len(manifest))}
    number = {name: k for k, name in enumerate(manifest.classes)}
    problems = [f"{file}: there is no image {path} in the data or the pool." for path in filled if path not in row_of]
    wrong: dict[str, list[str]] = {}
    for name, place in filled.values():
        if name not in number:
            wrong.setdefault(name, []).append(place)
    problems += [
        f"{file}: {rows_with(places)} the label '{name}', which is not a class.{did_you_mean(name, number)} "
        f"Classes: {', '.join(manifest.classes[:10])}."
        for name, places in wrong.items()
    ]
    if problems:
        raise DataError(*problems[:5], *([f"(and {len(problems) - 5} more)"] if problems[5:] else []))
    label = manifest.label.copy()
    for path, (name, _) in filled.items():
        label[row_of[path]] = number[name]
    note(f"Using {plural(len(filled), 'label')} from {file}.")
    return manifest.with_labels(label)


def _filled(file: Path) -> dict[str, tuple[str, str]]:
    """Return the filled-in labels by path, each with where it is in the file."""
    rows = numbered_records(file)
    if rows and not {"path", "label"} <= set(rows[0][1]):
        raise DataError(f"{file} must have the columns path and label, as in labels.csv of a run.")
    return {row["path"]: (row["label"].strip(), place) for place, row in rows if row["label"].strip()}

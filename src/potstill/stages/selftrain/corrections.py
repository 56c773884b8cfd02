"""What people see and mend: the labels as tables, and the tables read back with their corrections."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from potstill.data.csv_files import read_records, write_csv
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.progress import note
from potstill.stages.selftrain.selection import STATES, Selection
from potstill.words import plural

COLUMNS = ("path", "label", "predicted", "confidence", "disagreement", "state")


def write_table(
    file: Path, manifest: Manifest, pool: np.ndarray, selection: Selection, disagreement: np.ndarray, rows: np.ndarray
) -> None:
    """Write a CSV of images of the pool; `label` is empty, for people to fill in where `predicted` is wrong.

    rows: places in `pool` and in the columns of `selection` and `disagreement`, in the order to be written.
    """

    def row(i: int) -> list[str]:
        name = manifest.classes[selection.predicted[i]]
        confidence, apart = f"{selection.confidence[i]:.4f}", f"{disagreement[i]:.4f}"
        return [manifest.name(int(pool[i])), "", name, confidence, apart, STATES[selection.state[i]]]

    write_csv(file, COLUMNS, map(row, rows.tolist()))


def worth_labelling(chance: np.ndarray, disagreement: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the `count` images whose labels would teach most: unsure and disputed, of every class.

    The score is entropy (0..1) plus disagreement (arXiv:1112.5745 separates the two); classes take turns.
    """
    entropy = -(chance * np.log(np.clip(chance, 1e-12, 1))).sum(1) / np.log(chance.shape[1])
    score, predicted = entropy + disagreement, chance.argmax(1)
    turn = np.zeros(len(score), np.int64)
    order = np.argsort(-score, kind="stable")
    for number in range(chance.shape[1]):
        mine = order[predicted[order] == number]
        turn[mine] = np.arange(len(mine))
    return np.lexsort((-score, turn))[:count]


def corrected(manifest: Manifest, file: Path) -> Manifest:
    """Return the manifest with the labels that were filled in; raise `DataError` with every row that is wrong."""
    filled = _filled(file)
    pool = manifest.rows("train", labelled=False)
    place = {manifest.name(int(row)): int(row) for row in pool}
    number = {name: k for k, name in enumerate(manifest.classes)}
    problems = [f"{file}: there is no image {path} in the pool." for path in filled if path not in place]
    problems += [
        f"{file}: {path} was given the label '{name}'. Classes: {', '.join(manifest.classes[:10])}."
        for path, name in filled.items()
        if name not in number
    ]
    if problems:
        raise DataError(*problems[:5], *([f"(and {len(problems) - 5} more)"] if problems[5:] else []))
    label = manifest.label.copy()
    for path, name in filled.items():
        label[place[path]] = number[name]
    note(f"Using {plural(len(filled), 'label')} given by hand in {file}.")
    return manifest.with_labels(label)


def _filled(file: Path) -> dict[str, str]:
    """Return the label of each path that has one."""
    rows = read_records(file)
    if rows and not {"path", "label"} <= set(rows[0]):
        raise DataError(f"{file} needs the columns path and label, as labels.csv of a run has them.")
    return {row["path"]: row["label"].strip() for row in rows if row["label"].strip()}

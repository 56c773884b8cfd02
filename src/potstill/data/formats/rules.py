"""The rules that every data set must satisfy, in any format; violations would invalidate results."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from potstill.data.formats.leaving_out import leave_out
from potstill.data.manifest import SPLITS, Manifest
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import argument, plural

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MOST_LEAKED = 0.01  # maximum fraction of test images that may also be in the training data


def refuse_unusable(manifest: Manifest, *, allow_empty: bool) -> None:
    """Raise `DataError` with all problems that make the labels or the test split unusable; note what is unusual."""
    if manifest.classes:
        problems = [*_one_class(manifest), *([] if allow_empty else _empty(manifest)), *_only_in_test(manifest)]
        if problems:
            raise DataError(*problems)
        for names in near_equal(manifest.classes):
            note(f"{manifest.root} has classes of nearly the same name: {quoted(names)}. If they are one, merge them.")
    else:
        note(f"{manifest.root} has no classes: its {plural(len(manifest), 'image')} will be used without labels.")


def refuse_leaks(manifest: Manifest, *, most: float = MOST_LEAKED) -> None:
    """Raise `DataError` if more than `most` of the test images are also in the training data, byte for byte."""
    test = manifest.digest[manifest.rows("test")]
    leaked = int(np.isin(test, manifest.digest[manifest.split != SPLITS.index("test")]).sum())
    if not leaked:
        return
    verb = "is" if leaked == 1 else "are"
    leak = f"{leaked} of {plural(len(test), 'test image')} of {manifest.root} {verb} also in the training data"
    check = f"potstill check {argument(manifest.root)}"
    if leaked > most * len(test):
        raise DataError(
            f"{leak}, so test accuracy would be inflated by memorised images. To go on, "
            f"{leave_out(manifest.source, manifest.root, table=', and use clean.csv')}."
        )
    note(f"{leak}; test accuracy will be inflated by memorised images. See: {check}")


def _one_class(manifest: Manifest) -> Iterator[str]:
    if len(manifest.classes) == 1:
        yield (
            f"{manifest.root} has only one class, '{manifest.classes[0]}'; classification needs at least two. "
            "Give the folder that holds one folder per class."
        )


def counts(manifest: Manifest, split: str) -> np.ndarray:
    """Return int64 [K], the number of labelled images of each class in a split."""
    return np.bincount(manifest.label[manifest.rows(split, labelled=True)], minlength=len(manifest.classes))


def _empty(manifest: Manifest) -> Iterator[str]:
    total = np.sum([counts(manifest, split) for split in SPLITS], axis=0)
    names = [name for name, count in zip(manifest.classes, total, strict=True) if not count]
    if names:
        yield (
            f"{manifest.root} has no images of {quoted(names)}. Add some, remove the class, "
            "or keep it empty: distill --allow-empty, or data.allow_empty: true in a recipe."
        )


def _only_in_test(manifest: Manifest) -> Iterator[str]:
    trained = counts(manifest, "train")
    for split in SPLITS[1:] if trained.any() else ():
        lost = np.flatnonzero((counts(manifest, split) > 0) & (trained == 0))
        if len(lost):
            yield (
                f"{manifest.root}: the {split} split has images of {quoted([manifest.classes[k] for k in lost])}, but "
                "the train split has none, so they cannot be learned. Add some to train, or check that both splits "
                "use the same class names."
            )


def near_equal(names: Sequence[str]) -> list[list[str]]:
    """Return groups of names that differ only in case, spaces, punctuation, accents, a plural s or leading zeros."""
    groups: dict[str, list[str]] = {}
    for name in names:
        letters = unicodedata.normalize("NFKD", name).casefold()
        plain = re.sub(r"[^\w]|_", "", "".join(c for c in letters if not unicodedata.combining(c)))
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", plain)
        groups.setdefault(plain[:-1] if len(plain) > 3 and plain.endswith("s") else plain or name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def quoted(names: Sequence[str], most: int = 5) -> str:
    """Return "'a', 'b' and 'c'"; of many names only the first few."""
    shown = [f"'{name}'" for name in names[:most]]
    shown += [f"{len(names) - most} more"] if len(names) > most else []
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def how_to_label(path: str) -> str:
    """Return what to do about images at `path` that have no labels: the end of a sentence."""
    if Path(path).suffix.lower() in TABLES:
        return f"name the column of labels 'label' in the first line of {path}."
    return f"put the images into one folder per class, such as {path}/cat/ and {path}/dog/."

"""The cells of a table: paths as spreadsheets and Windows write them, labels, and what stands for no label."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.data.formats.listing import Entry
from potstill.data.formats.rules import quoted
from potstill.errors import DataError
from potstill.progress import note
from potstill.words import plural

# what pandas, R and spreadsheets write for an empty cell; "none" in lower case is the name of many a class
_MISSING = frozenset({"nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "?"})
_BETWEEN = re.compile(r"\s*[|;,]\s*")
_WHOLE = re.compile(r"-?\d+\.0+")


def text_of(value: Any) -> str | None:
    """Return a cell as text without spaces at its ends, None if it is empty."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    return text or None


def label_of(value: Any, path: str) -> str | Sequence[str] | None:
    """Return a label; None if there is none, or all labels if there are several.

    A label keeps the spaces at its ends if a folder of the path has that very name.
    """
    if isinstance(value, list | tuple):
        labels = [label for one in value if (label := text_of(one)) is not None]
        return labels if len(labels) > 1 else next(iter(labels), None)
    if isinstance(value, str) and value != value.strip() and value in path.split("/"):
        return value
    return text_of(value)


def path_of(value: Any, folder: Path) -> str | None:
    """Return a path of a table, relative to its folder or absolute, with `/` between its parts, without `./`.

    Backslashes and spaces at the ends stay where a file has that very name.
    """
    text = None if value is None else str(value)
    stripped = text_of(text)
    if text is None or stripped is None or "\0" in text:
        return None
    if (text != stripped or "\\" in text) and not _exists(folder, text):
        text = stripped if _exists(folder, stripped) else stripped.replace("\\", "/")
    absolute = "/" if text.startswith("/") else ""
    return absolute + "/".join(part for part in text.split("/") if part not in ("", "."))


def _exists(folder: Path, name: str) -> bool:
    try:
        return (folder / name).exists()
    except OSError:  # a name that is too long
        return False


def one_label_each(file: Path, entries: Sequence[Entry], labels: Sequence[str | Sequence[str] | None]) -> list[Entry]:
    """Return the entries with their labels; note what is read as no label, raise `DataError` for several labels.

    A text like `cat|dog` is two labels if `cat` and `dog` are labels of other images.
    """
    single = {label for label in labels if isinstance(label, str)}
    several = [
        (entry.name, label if isinstance(label, str) else "|".join(label))
        for entry, label in zip(entries, labels, strict=True)
        if label is not None and (not isinstance(label, str) or _is_several(label, single))
    ]
    if several:
        shown = "; ".join(f"{name}: {label}" for name, label in several[:3])
        raise DataError(
            f"{file}: {plural(len(several), 'image has', 'images have')} several labels ({shown}). An image has one "
            "label here. Keep the label that matters, or leave these rows out."
        )
    missing = Counter(label for label in single.intersection(_MISSING) for other in labels if other == label)
    if missing:
        note(
            f"{file}: {plural(missing.total(), 'label')} {quoted(sorted(missing))} "
            f"{'is' if missing.total() == 1 else 'are'} read as no label. If that is the name of a class, rename it."
        )
    plain = {label: label for label in single - _MISSING} | _without_decimals(file, single - _MISSING)
    return [
        dataclasses.replace(entry, label=plain.get(label) if isinstance(label, str) else None)
        for entry, label in zip(entries, labels, strict=True)
    ]


def _is_several(label: str, single: set[str]) -> bool:
    parts = _BETWEEN.split(label)
    return len(parts) > 1 and all(part in single for part in parts)


def _without_decimals(file: Path, labels: set[str]) -> dict[str, str]:
    """Return "3" for "3.0", if all labels are like that: class numbers in a column with empty cells."""
    if not labels or not all(_WHOLE.fullmatch(label) for label in labels):
        return {}
    note(f"{file}: the labels are whole numbers written with a decimal point; '0.0' is read as '0'.")
    return {label: label.partition(".")[0] for label in labels}

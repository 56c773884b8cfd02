"""`Store`: what a model said of a manifest, on disk, by (view, index).

A teacher that is asked once can teach a hundred students. The store is cut into parts of a few thousand rows; a part
is a safetensors file that appears whole (written under another name, then renamed), so a writer killed at any moment
has finished some parts and lost one, and the next writer goes on with the parts that are missing. Reading maps the
files into memory and copies only the rows asked for.

A store knows its source (teacher weights, images, views, precision). Opening it with another is an error that says
which part differs, because a stored soft label that does not fit its image teaches nonsense.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from potstill.artifacts import atomic, finish, finished, read_json, write_json
from potstill.errors import RunError

PART_ROWS = 4096


class Store:
    """Columns of numbers for each (view, index): for instance logits, float16 [views, rows, classes].

    rows: int64 [N], the rows of the manifest that are stored. source: JSON facts that must agree on reuse.
    """

    def __init__(self, folder: Path, rows: np.ndarray, views: int, source: dict[str, Any]) -> None:
        self.folder, self.rows, self.views = folder, np.asarray(rows, dtype=np.int64), views
        self._parts: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self._position = np.full(int(self.rows.max(initial=-1)) + 1, -1, dtype=np.int64)
        self._position[self.rows] = np.arange(len(self.rows))
        self._open(json.loads(json.dumps({**source, "rows": len(self.rows), "views": views})))

    def _open(self, source: dict[str, Any]) -> None:
        file = self.folder / "source.json"
        if not file.is_file():
            write_json(file, source)
            return
        made = read_json(file)
        different = sorted(key for key in {*made, *source} if made.get(key) != source.get(key))
        if different:
            raise RunError(
                f"The store {self.folder} holds what a model said with another {' and '.join(different)}. "
                "Its rows would not fit these images. Give a new run folder with --out, or remove the store."
            )

    @property
    def complete(self) -> bool:
        """Whether every part was written."""
        return finished(self.folder) is not None

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.rglob("*.safetensors"))

    def missing(self) -> list[tuple[int, int]]:
        """Return the (view, part) pairs that are still to be written."""
        parts = range(-(-len(self.rows) // PART_ROWS))
        pairs = [(view, part) for view in range(self.views) for part in parts]
        return [pair for pair in pairs if not self._file(*pair).is_file()]

    def part_rows(self, part: int) -> np.ndarray:
        """Return the manifest rows of a part."""
        return self.rows[part * PART_ROWS : (part + 1) * PART_ROWS]

    def write(self, view: int, part: int, columns: dict[str, np.ndarray]) -> None:
        """Write one part; `columns` have one row for each of `part_rows(part)`."""
        with atomic(self._file(view, part)) as temporary:
            temporary.write_bytes(save({name: np.ascontiguousarray(values) for name, values in columns.items()}))

    def close(self) -> None:
        """Declare the store complete."""
        assert not self.missing(), "a store is complete only when every part is there"
        finish(self.folder, {"bytes": self.bytes})

    def read(self, index: np.ndarray, view: np.ndarray) -> dict[str, np.ndarray]:
        """Return the stored columns, [B, ...] each, for int64 `index` and `view` [B]; views wrap around."""
        position, view = self._position[index], np.asarray(view) % self.views
        key = view * (len(self.rows) + PART_ROWS) + position // PART_ROWS
        result: dict[str, np.ndarray] = {}
        for value in np.unique(key):
            chosen = np.flatnonzero(key == value)
            first = chosen[0]
            part = self._part(int(view[first]), int(position[first]) // PART_ROWS)
            for name, stored in part.items():
                if name not in result:
                    result[name] = np.empty((len(key), *stored.shape[1:]), stored.dtype)
                result[name][chosen] = stored[position[chosen] % PART_ROWS]
        return result

    def _file(self, view: int, part: int) -> Path:
        return self.folder / f"view-{view:04d}" / f"part-{part:05d}.safetensors"

    def _part(self, view: int, part: int) -> dict[str, np.ndarray]:
        if (view, part) not in self._parts:
            self._parts[view, part] = map_safetensors(self._file(view, part))
        return self._parts[view, part]


def map_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file as read-only memory maps."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    kinds = {"F16": "<f2", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U16": "<u2", "U8": "u1"}
    return {
        name: np.memmap(file, kinds[fact["dtype"]], "r", 8 + length + fact["data_offsets"][0], tuple(fact["shape"]))
        for name, fact in header.items()
    }

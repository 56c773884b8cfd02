"""`Store`: the outputs of a model for the images of a manifest, on disk, by (view, index).

Cached logits can be used for any number of students. The store is split into parts of a few thousand rows; a part is a
safetensors file that is written atomically, so its existence means that it is complete. After an interruption at most
one part is lost; the next writers, any number of them, compute the missing parts. Reading maps the files into memory
and copies only the requested rows, so memory use does not grow with the number of images.

A store records its source (teacher weights, images, augmentation, normalisation, precision). Opening it with another
one is an error that names the differences, because soft labels are only valid for their views. Each part has the sha256
of its columns and the fingerprint of its source, which are verified before the part is first used.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from potstill.artifacts import atomic, fingerprint, finish, finished, read_sealed_if_whole, sealed, write_json
from potstill.errors import RunError
from potstill.progress import note
from potstill.words import plural

PART_ROWS = 4096
OPEN_PARTS = 512  # each has a file descriptor, of which a process has about a thousand
KINDS = {"F16": "<f2", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U16": "<u2", "U8": "u1"}
Columns = dict[str, np.ndarray]
Stripe = tuple[int, int]
"""Which of how many stripes of the parts, counted from 0: of (1, 3) every third part, from the second."""
WHOLE: Stripe = (0, 1)


class Store:
    """Columns of numbers for each (view, index): for instance logits, float16 [views, rows, classes].

    rows: int64 [N], the stored rows of the manifest. source: JSON facts that must be equal on reuse; their keys are
    used in error messages. Raises `RunError` if the folder has a store of another source.
    """

    def __init__(self, folder: Path, rows: np.ndarray, views: int, source: dict[str, Any]) -> None:
        self.folder, self.rows, self.views = folder, np.asarray(rows, dtype=np.int64), views
        self._parts: dict[tuple[int, int], Columns] = {}
        self._compared: set[tuple[int, int]] = set()
        self._position = np.full(int(self.rows.max(initial=-1)) + 1, -1, dtype=np.int64)
        self._position[self.rows] = np.arange(len(self.rows))
        chosen = [len(self.rows), hashlib.sha256(self.rows.tobytes()).hexdigest()]
        self._open({**source, "rows": chosen, "views": views, "part size": PART_ROWS})

    def _open(self, source: dict[str, Any]) -> None:
        file, source = self.folder / "source.json", json.loads(json.dumps(source))
        self._source = fingerprint(source)
        made = read_sealed_if_whole(file)
        if made is None:
            write_json(file, sealed(source))
            return
        different = sorted(key for key in {*made, *source} if made.get(key) != source.get(key))
        if different:
            raise RunError(
                f"The store {self.folder} was made from another source (different: {', '.join(different)}), so its "
                "outputs do not match these images. Give a new run folder with --out, or remove the store."
            )

    # -- writing -------------------------------------------------------------------------------------------

    @property
    def parts(self) -> list[tuple[int, int]]:
        """All (view, part) pairs, in the order in which they are written."""
        return [(view, part) for view in range(self.views) for part in range(self._parts_a_view)]

    @property
    def _parts_a_view(self) -> int:
        return -(-len(self.rows) // PART_ROWS)

    def missing(self, stripe: Stripe = WHOLE) -> list[tuple[int, int]]:
        """Return the (view, part) pairs of a stripe that are not written yet."""
        return [pair for pair in self._of(stripe) if not self._file(*pair).is_file()]

    def _of(self, stripe: Stripe) -> list[tuple[int, int]]:
        first, count = stripe
        return self.parts[first::count]

    def part_rows(self, part: int) -> np.ndarray:
        """Return the manifest rows of a part."""
        return self.rows[part * PART_ROWS : (part + 1) * PART_ROWS]

    def write(self, view: int, part: int, columns: Columns) -> None:
        """Write one part; `columns` have one row for each of `part_rows(part)`."""
        assert all(len(values) == len(self.part_rows(part)) for values in columns.values())
        columns = {name: np.ascontiguousarray(values) for name, values in columns.items()}
        with atomic(self._file(view, part), by_all=True) as temporary:
            temporary.write_bytes(save(columns, {"sha256": digest(columns, self._source)}))

    def discard_damaged(self, stripe: Stripe = WHOLE) -> None:
        """Remove damaged parts of a stripe, so that they count as missing, with a note."""
        present = [pair for pair in self._of(stripe) if self._file(*pair).is_file()]
        damaged = [pair for pair in present if self._checked(*pair) is None]
        for pair in damaged:
            self._file(*pair).unlink()
        if damaged:
            note(f"Recomputing {plural(len(damaged), 'part')} of the store {self.folder.name}, damaged on disk.")

    def close(self) -> None:
        """Mark the store as complete, and remove temporary files of killed writers."""
        assert not self.missing(), "parts of the store are missing"
        for left in self.folder.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
        finish(self.folder, {"bytes": self.bytes})

    # -- reading -------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether all parts exist."""
        return finished(self.folder) is not None and not self.missing()

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.rglob("*.safetensors"))

    def read(self, index: np.ndarray, view: np.ndarray) -> Columns:
        """Return the stored columns, [B, ...] each, for int64 `index` and `view` [B]; views wrap around."""
        position, view = self._position[index], np.asarray(view)
        assert position.min(initial=0) >= 0 and view.min(initial=0) >= 0, "these rows are not in the store"
        part = view % self.views * self._parts_a_view + position // PART_ROWS
        order = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.diff(part[order], prepend=-1)).tolist()
        result: Columns = {}
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            # A batch from a large store rarely has two rows in one part, and an int indexes ten times faster.
            chosen = order[start:end] if end - start > 1 else int(order[start])
            columns = self._part(*divmod(int(part[order[start]]), self._parts_a_view))
            place = position[chosen] % PART_ROWS
            for name, stored in columns.items():
                if name not in result:
                    result[name] = np.empty((len(part), *stored.shape[1:]), stored.dtype)
                result[name][chosen] = stored[place]
        return result

    def _part(self, view: int, part: int) -> Columns:
        columns = self._checked(view, part)
        if columns is None:
            raise RunError(
                f"{self._file(view, part)} is damaged: its checksum is wrong. Run the command that made "
                f"{self.folder.parent} again; only this part is computed again."
            )
        return columns

    def _checked(self, view: int, part: int) -> Columns | None:
        """Return the columns of a part, None if their checksum is wrong; verified once per process."""
        key = view, part
        columns = self._parts.pop(key, None)
        if columns is None:
            columns, facts = map_safetensors(self._file(view, part))
            if key not in self._compared and facts.get("sha256") != digest(columns, self._source):
                return None
            self._compared.add(key)
            if len(self._parts) >= OPEN_PARTS:
                del self._parts[next(iter(self._parts))]
        self._parts[key] = columns  # the most recently used is last
        return columns

    def _file(self, view: int, part: int) -> Path:
        return self.folder / f"view-{view:04d}" / f"part-{part:05d}.safetensors"


def digest(columns: Columns, source: str) -> str:
    """Return the sha256 (hex) of columns (names, types, shapes, bytes) and the fingerprint of their source."""
    sha256 = hashlib.sha256(source.encode())  # one entry in the metadata: the order of several is random
    for name, values in sorted(columns.items()):
        sha256.update(f"{name} {values.dtype} {values.shape}".encode())
        sha256.update(values.reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def map_safetensors(file: Path) -> tuple[Columns, dict[str, str]]:
    """Return the tensors of a safetensors file as one read-only memory map, and its metadata.

    Both are empty if the file is truncated or not a safetensors file.
    """
    try:
        with file.open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:start])
        facts = header.pop("__metadata__", {})
        return {name: _tensor(mapped, start, fact) for name, fact in header.items()}, facts
    except (ValueError, KeyError, OverflowError):
        return {}, {}


def _tensor(mapped: mmap.mmap, start: int, fact: dict[str, Any]) -> np.ndarray:
    count = int(np.prod(fact["shape"], dtype=np.int64))
    return np.frombuffer(mapped, KINDS[fact["dtype"]], count, start + fact["data_offsets"][0]).reshape(fact["shape"])

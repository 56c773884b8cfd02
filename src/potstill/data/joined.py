"""Two data sets as one: labelled images, and more without labels.

A row of the whole is a row of one part; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from potstill.data.manifest import Manifest, Source


class Joined:
    """A `Source` over several parts; row r is row `place[r]` of part `part[r]`."""

    def __init__(self, parts: Sequence[Source], part: np.ndarray, place: np.ndarray) -> None:
        self.parts, self._part, self._place = parts, part, place
        self.names: Sequence[str] = [parts[p].names[i] for p, i in zip(part.tolist(), place.tolist(), strict=True)]

    @classmethod
    def of(cls, *parts: Source) -> Joined:
        """Return the rows of all parts, one part after the other."""
        sizes = [len(part.names) for part in parts]
        return cls(parts, np.repeat(np.arange(len(parts)), sizes), np.concatenate([np.arange(n) for n in sizes]))

    def image(self, row: int) -> np.ndarray:
        return self.parts[self._part[row]].image(int(self._place[row]))

    def digest(self, row: int) -> bytes:
        return self.parts[self._part[row]].digest(int(self._place[row]))

    def only(self, rows: Sequence[int]) -> Joined:
        part, place = self._part[list(rows)], self._place[list(rows)]
        rows_by_part = [np.flatnonzero(part == number) for number in range(len(self.parts))]
        renumbered = np.zeros_like(place)
        for chosen in rows_by_part:
            renumbered[chosen] = np.arange(len(chosen))
        kept = [p.only(place[chosen].tolist()) for p, chosen in zip(self.parts, rows_by_part, strict=True)]
        return Joined(kept, part, renumbered)


def joined(manifest: Manifest, pool: Manifest) -> Manifest:
    """Return both as one manifest: first the rows of `manifest`, then the pool, unlabelled and in train."""
    one, two = (np.arange(len(m)) if m.kept is None else m.kept for m in (manifest, pool))
    group = None
    if manifest.group is not None:
        other = np.arange(len(pool)) - 2**62 if pool.group is None else pool.group
        group = np.concatenate([manifest.group, other])
    return Manifest(
        source=Joined.of(manifest.source, pool.source),
        label=np.concatenate([manifest.label, pool.label]),
        split=np.concatenate([manifest.split, pool.split]),
        classes=manifest.classes,
        digest=np.concatenate([manifest.digest, pool.digest]),
        root=manifest.root,
        group=group,
        kept=np.concatenate([one, two + len(manifest.source.names)]),
    )

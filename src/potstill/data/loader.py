"""`Batch`, and the order of batches: the batch of step s depends only on (seed, s).

There is no iterator to be saved, advanced or fast-forwarded. A resumed run asks for the batch of its next step; two
processes ask for their stripes of it; the control and the student ask for the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from potstill.data.augment.mix import Mix, apply_mix, draw_mix
from potstill.data.draws import permutation
from potstill.data.manifest import Manifest
from potstill.data.pixels import Pixels
from potstill.data.views import CLEAN, View


@dataclass
class Batch:
    """image: float32 [B, C, H, W] in 0..1; label: int64 [B], -100 where none; index: int64 [B], rows of the
    manifest; view: int64 [B]. mix: how the student's images are mixed (its targets are mixed the same way)."""

    image: Tensor
    label: Tensor
    index: Tensor
    view: Tensor
    mix: Mix | None = None

    def mixed_image(self) -> Tensor:
        """Return what the student sees: the images, mixed where `mix` says so."""
        return self.image if self.mix is None else apply_mix(self.image, self.mix)


@dataclass(frozen=True)
class Stream:
    """An endless shuffled sequence of rows: pass p is a permutation that depends on (seed, p) alone."""

    rows: np.ndarray
    seed: int
    name: str

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, pass numbers), int64 [count] each, of the positions start..start+count."""
        position = np.arange(start, start + count)
        passes, offset = np.divmod(position, len(self.rows))
        rows = np.empty(count, dtype=np.int64)
        for number in np.unique(passes):
            here = passes == number
            rows[here] = self.rows[permutation(self.seed, int(number), len(self.rows), self.name)[offset[here]]]
        return rows, passes


class Order:
    """Which (rows, views) make the batch of a step.

    views: how many views there are; pass p of the rows uses view p mod views, or view p where it is None.
    labelled_share: the part of each batch drawn from labelled rows, 0..1; None draws from all rows alike.
    steps_per_epoch: where an epoch is not one pass over the rows.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        batch_size: int,
        seed: int,
        views: int | None,
        labelled_share: float | None = None,
        steps_per_epoch: int | None = None,
        split: str = "train",
    ) -> None:
        rows = manifest.rows(split)
        self.batch_size, self.views = min(batch_size, len(rows)), views
        self.steps_per_epoch = steps_per_epoch or len(rows) // self.batch_size
        streams = {"all": (rows, self.batch_size)}
        unlabelled = manifest.rows(split, labelled=False)
        if labelled_share is not None and 0 < len(unlabelled) < len(rows):
            labelled = min(max(round(self.batch_size * labelled_share), 1), self.batch_size)
            streams = {
                "labelled": (manifest.rows(split, labelled=True), labelled),
                "unlabelled": (unlabelled, self.batch_size - labelled),
            }
        self._streams = [(Stream(rows, seed, name), count) for name, (rows, count) in streams.items()]

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (index, view), int64 [batch_size] each, of step 0, 1, 2, ..."""
        taken = [stream.take(step * count, count) for stream, count in self._streams]
        index, passes = (np.concatenate(column) for column in zip(*taken, strict=True))
        return index, passes if self.views is None else passes % self.views


class Loader:
    """Makes batches of a manifest's images on a device.

    mix: "mixup", "cutmix" or None, with strength `mix_alpha` > 0.
    stripe: (first, every); a batch is cut to every so-many-th of its rows, beginning with row `first`.
    """

    def __init__(
        self,
        manifest: Manifest,
        pixels: Pixels,
        view: View,
        *,
        device: torch.device | str = "cpu",
        mix: str | None = None,
        mix_alpha: float = 0.2,
        stripe: tuple[int, int] = (0, 1),
    ) -> None:
        self.manifest, self.view, self.device = manifest, view, torch.device(device)
        self.pixels = pixels.on(self.device)
        self._mix, self._mix_alpha, self._stripe = mix, mix_alpha, stripe

    def train_batch(self, order: Order, step: int, *, stripe: tuple[int, int] | None = None) -> Batch:
        """Return the batch of a step of `order`, or a stripe of it: a pure function of the seeds and the step.

        Rows are mixed with others of their stripe.
        """
        first, every = stripe or self._stripe
        index, view = order.at(step)
        batch = self.batch(index[first::every], view[first::every])
        if self._mix:
            batch.mix = draw_mix(
                self._mix, self._mix_alpha, seed=self.view.seed, step=step, batch_size=len(batch.index),
                size=batch.image.shape[-2:], device=self.device,
            )  # fmt: skip
        return batch

    def clean_batch(self, index: np.ndarray) -> Batch:
        """Return these rows without augmentation."""
        return self.batch(index, np.full(len(index), CLEAN))

    def batch(self, index: np.ndarray, view: np.ndarray) -> Batch:
        """Return these rows in these views."""
        pixels = self.pixels.take(index).to(self.device, non_blocking=True)
        columns = (
            torch.from_numpy(np.ascontiguousarray(c, dtype=np.int64)) for c in (self.manifest.label[index], index, view)
        )
        label, index_on, view_on = (column.to(self.device, non_blocking=True) for column in columns)
        return Batch(self.view(pixels, index, view), label, index_on, view_on)

"""`Batch`, and the order of batches: the batch of step s depends only on (seed, s).

There is no iterator state to save, advance or fast-forward. A resumed run takes the batch of its next step; several
processes take stripes of it; control and student take the same batch.
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

BATCH, SMALL_BATCH, FEW_IMAGES = 128, 32, 1000  # the default batch sizes, and below how many images the second is


@dataclass
class Batch:
    """image: float32 [B, C, H, W] in 0..1; label: int64 [B], -100 if unlabelled; index: int64 [B], rows of the
    manifest; view: int64 [B]. mix: how the student's images are mixed (its targets are mixed the same way)."""

    image: Tensor
    label: Tensor
    index: Tensor
    view: Tensor
    mix: Mix | None = None

    def mixed_image(self) -> Tensor:
        """Return the student's input: the images, mixed according to `mix`."""
        return self.image if self.mix is None else apply_mix(self.image, self.mix)


@dataclass(frozen=True)
class Stream:
    """An infinite shuffled sequence of rows: pass p is a permutation that depends only on (seed, p)."""

    rows: np.ndarray
    seed: int
    name: str

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, pass numbers), int64 [count] each, of the positions start..start+count."""
        position = np.arange(start, start + count)
        passes, offset = np.divmod(position, len(self.rows))
        rows = np.empty(count, dtype=np.int64)
        for number in np.unique(passes):
            mask = passes == number
            rows[mask] = self.rows[permutation(self.seed, int(number), len(self.rows), self.name)[offset[mask]]]
        return rows, passes


def images_per_step(batch_size: int | None, images: int) -> int:
    """Return the batch size for a number of training images, at most all of them.

    batch_size: the one that was asked for. None: 128, or 32 of fewer than 1,000 images, which would otherwise have too
        few optimizer steps in an epoch (docs/log.md, 2026-11-30).
    """
    return min(batch_size or (SMALL_BATCH if images < FEW_IMAGES else BATCH), images)


class Order:
    """The (rows, views) of the batch of each step.

    batch_size: images of a step, at most all of them; None: see `images_per_step`.
    views: number of views; pass p of the rows uses view p mod views, or view p if None.
    labelled_share: fraction of each batch drawn from labelled rows, 0..1; None draws from all rows together. With 1
        an epoch is one pass over the labelled rows.
    steps_per_epoch: number of steps, if an epoch is not one pass over the rows.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        batch_size: int | None,
        seed: int,
        views: int | None,
        labelled_share: float | None = None,
        steps_per_epoch: int | None = None,
        split: str = "train",
    ) -> None:
        rows = manifest.rows(split)
        passed = len(manifest.rows(split, labelled=True)) if labelled_share == 1 else 0
        passed = passed or len(rows)
        self.batch_size, self.views = images_per_step(batch_size, passed), views
        self.steps_per_epoch = steps_per_epoch or passed // self.batch_size
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
    """Creates batches of a manifest's images on a device.

    mix: "mixup", "cutmix" or None, with strength `mix_alpha` > 0.
    stripe: (first, step); only rows first, first + step, ... of each batch are loaded.
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
            batch.mix = self._draw_mix(batch, step)
        return batch

    def _draw_mix(self, batch: Batch, step: int) -> Mix:
        assert self._mix is not None
        count, _, height, width = batch.image.shape
        size, seed = (height, width), self.view.seed
        return draw_mix(
            self._mix, self._mix_alpha, seed=seed, step=step, batch_size=count, size=size, device=self.device
        )

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

"""A contact sheet of augmented images, for inspection before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from potstill.data.pixels import Pixels
from potstill.data.views import CLEAN, View

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 96  # pixels per side to which small images are enlarged, by whole factors


def contact_sheet(pixels: Pixels, view: View, rows: Sequence[int] | np.ndarray, views: int = 8) -> Image:
    """Return an image with one line per row: the clean image, then its views 0 .. `views` - 1."""
    from torchvision.transforms.v2.functional import to_pil_image
    from torchvision.utils import make_grid

    numbers = np.concatenate([[CLEAN], np.arange(views)])
    index = np.repeat(np.asarray(rows, dtype=np.int64), len(numbers))
    shown = view(pixels.take(index), index, np.tile(numbers, len(rows)))
    zoom = max(1, CELL // max(view.size))
    shown = shown.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    grid = make_grid(shown, nrow=len(numbers), padding=4, pad_value=1.0)
    return to_pil_image((grid * 255).round().to(torch.uint8))

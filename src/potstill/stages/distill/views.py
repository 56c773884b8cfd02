"""The default number of views whose teacher logits are cached."""

from __future__ import annotations

import torch

from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier, bare

STEP = 3  # a training step costs about three forward passes
PHOTO = 64  # pixels per side
FEWEST, FEWEST_PHOTOS, MOST_PHOTOS = 4, 2, 4


def affordable_views(teacher: Classifier, student: Classifier, epochs: int) -> int:
    """Return the number of views of each image for which the teacher's logits are cached by default.

    For all views these cost about as many multiply-accumulates as the training of one student for `epochs` epochs. At
    least `FEWEST`, since the images of a very small student cost more than its network; 2 to 4 for photos, whose
    augmentation and decoding cost most.
    """
    views = round(STEP * epochs * _macs(student) / _macs(teacher))
    if min(teacher.card.crop) < PHOTO:
        return max(views, FEWEST)
    return min(max(views, FEWEST_PHOTOS), MOST_PHOTOS)


def _macs(model: Classifier) -> int:
    card = model.card
    image = torch.zeros(1, card.channels, *card.size, device=model.mean.device)
    return max(cost(bare(model.network), image).total_macs, 1)

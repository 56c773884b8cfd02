"""How far an exported file strays from the network that was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from potstill.models.outputs import Classifier, Outputs


def parity(
    classifier: Classifier, exported: Callable[[Tensor], Outputs], batches: Iterable[Tensor]
) -> dict[str, float | int]:
    """Return what `exported` says against `classifier` over batches of images [B, C, H, W] in 0..1.

    images: how many were compared. max_logit_difference: the largest absolute one. agreement: percent of the
    images that both put into the same class. The classifier is asked in eval mode and left in the mode it was in.
    """
    images = same = 0
    largest = 0.0
    training = classifier.training
    classifier.eval()
    with torch.inference_mode():
        for image in batches:
            trained, filed = classifier(image).logits, exported(image).logits
            images += len(image)
            same += int((trained.argmax(1) == filed.argmax(1)).sum())
            largest = max(largest, float((trained - filed).abs().max()))
    classifier.train(training)
    agreement = 100 * same / images
    return {"images": images, "max_logit_difference": largest, "agreement": agreement}

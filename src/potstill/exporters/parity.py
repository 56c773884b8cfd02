"""Parity between an exported file and the trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from potstill.models.outputs import Classifier, Outputs


def parity(
    classifier: Classifier, exported: Callable[[Tensor], Outputs], batches: Iterable[Tensor]
) -> dict[str, float | int]:
    """Compare the outputs of `exported` and `classifier` over batches of images [B, C, H, W] in 0..1.

    images: number of images. max_logit_difference: largest absolute difference. agreement: percent of images with the
    same top class. The classifier runs in eval mode; its mode is restored afterwards.
    """
    images = same = 0
    largest = 0.0
    training = classifier.training
    classifier.eval()
    with torch.inference_mode():
        for image in batches:
            reference, logits = classifier(image).logits, exported(image).logits
            images += len(image)
            same += int((reference.argmax(1) == logits.argmax(1)).sum())
            largest = max(largest, float((reference - logits).abs().max()))
    classifier.train(training)
    agreement = 100 * same / images
    return {"images": images, "max_logit_difference": largest, "agreement": agreement}

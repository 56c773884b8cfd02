"""Probes on a shared frozen backbone: the features of a batch are computed once for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.models.hooks import as_vector
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, Outputs
from potstill.stages.finetune.logistic import Linear

LAYER = "pooled"


class Backbone:
    """Pooled features [B, D] of a frozen network; those of the last batch are cached."""

    def __init__(self, classifier: Classifier) -> None:
        self._model = classifier.replace(taps=resolve(classifier, [LAYER])).eval()
        self._image: Tensor | None = None
        self._features = torch.empty(0)

    def __call__(self, image: Tensor) -> Tensor:
        if image is not self._image:
            self._features = as_vector(self._model(image).features[LAYER]).float()
            self._image = image
        return self._features


class Probed:
    """A probe on a shared backbone: a model `image -> Outputs` with features."""

    def __init__(self, shared: Backbone, classifier: Classifier, head: Linear) -> None:
        self._shared, self._head, self.card = shared, head, classifier.card

    def __call__(self, image: Tensor) -> Outputs:
        features = self._shared(image)
        return Outputs(self._head(features), {LAYER: features})

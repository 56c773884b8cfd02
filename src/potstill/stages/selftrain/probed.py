"""Probes that share a frozen backbone: asked one after the other about the same images, they compute features once."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.models.hooks import as_vector
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, Outputs
from potstill.stages.finetune.logistic import Linear

LAYER = "pooled"


class Backbone:
    """Pooled features [B, D] of a frozen network, which remembers those of the last batch."""

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
    """A probe on a shared backbone, as a model `image -> Outputs` that gives its features too."""

    def __init__(self, shared: Backbone, classifier: Classifier, head: Linear) -> None:
        self._shared, self._head, self.card = shared, head, classifier.card

    def __call__(self, image: Tensor) -> Outputs:
        features = self._shared(image)
        return Outputs(self._head(features), {LAYER: features})

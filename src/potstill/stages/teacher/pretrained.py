"""A teacher from pretrained weights of other classes: their network, with a linear probe as its head."""

from __future__ import annotations

from potstill.models.outputs import Classifier
from potstill.objectives.balance import Balance
from potstill.stages.dataset import Data
from potstill.stages.finetune.backbone import backbone
from potstill.stages.finetune.features import extract
from potstill.stages.finetune.head import with_head
from potstill.stages.finetune.lazy_data import Decoded
from potstill.stages.finetune.probe import probe
from potstill.stages.finetune.settings import FinetuneConfig
from potstill.stages.recipe import DataConfig, OneTeacher

LAYER = "pooled"
VIEWS = 2
"""Augmented views of each image that the head is fitted on; `finetune` uses more."""


def with_new_head(config: OneTeacher, data: Data, *, seed: int, balance: Balance = "none") -> Classifier:
    """Return the network of the settings with a head for the data's classes, as `finetune --unfreeze none` fits it.

    Raises `ModelError` if the weights do not fit, or if the normalisation of their images is unknown.
    """
    card = config.card
    size = max(card.size) if card and card.size else None
    settings = FinetuneConfig(
        data=DataConfig(path=data.manifest.root, size=size),
        model=config.model,
        weights=config.weights,
        options=config.options,
        mean=card.mean if card else None,
        std=card.std if card else None,
        views=VIEWS,
        seed=seed,
    )
    images = Decoded(data)
    pretrained = backbone(settings, images)
    images = Decoded(data.for_input_of(pretrained.card.replace(crop=pretrained.card.size)))
    pretrained = pretrained.with_card(images.shown.on(pretrained.card))
    features = extract(pretrained, images, [LAYER], views=VIEWS, augment=settings.augment, seed=seed)
    fitted = probe(features, data.manifest, penalty=None, folds=settings.folds, seed=seed, balance=balance)
    return with_head(pretrained.cpu(), fitted.layer, fitted.head)

"""`--aux STAGE`: an auxiliary classifier at any tap of any model, used in training only (arXiv:1409.4842)."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.models.builtin.init import he
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, SideHead, SideHeads, bare
from potstill.models.projectors import channels
from potstill.models.zoo import seeded


def attach_aux(
    classifier: Classifier,
    names: Sequence[str],
    *,
    seed: int = 0,
    width: int = 128,
    hidden: int = 1024,
    dropout: float = 0.7,
) -> Classifier:
    """Return a classifier whose outputs in training hold, in `aux`, the logits of a side head for each tap name.

    The network inside is the same object. Existing heads come first. Raises `ModelError` for unknown names.
    """
    network, classes = classifier.network, len(classifier.card.classes)
    heads = dict(zip(network.taps, network.heads, strict=True)) if isinstance(network, SideHeads) else {}
    with seeded(seed):
        for tap in resolve(classifier, names):
            head = SideHead(channels(tap.shape), classes, width=width, hidden=hidden, dropout=dropout)
            heads[tap] = he(head).to(classifier.mean.device)
    return classifier.replace(network=SideHeads(bare(network), heads))


def strip_aux(classifier: Classifier) -> Classifier:
    """Return the classifier without side heads and their parameters."""
    return classifier.replace(network=bare(classifier.network))

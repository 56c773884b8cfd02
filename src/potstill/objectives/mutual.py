"""Deep mutual learning (arXiv:1706.00384): two untrained networks are trained together, each with the other as teacher.

The teacher of each network is the other's logits in the same step. There is no gradient from one to the other, so these
are two trainings on the same batches, at the cost of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from potstill.data.loader import Batch
from potstill.errors import ConfigError
from potstill.models.outputs import Classifier, Outputs
from potstill.objectives.objective import Objective, Term

PEER = "peer"


class Peers(Classifier):
    """A student, sharing its network, with a peer that is used in training only."""

    def __init__(self, student: Classifier, peer: Classifier) -> None:
        super().__init__(student.network, student.card, taps=student.taps)
        self.to(student.mean.device)
        self.peer = peer

    def forward(self, image: Tensor) -> Outputs:
        """Return the student's outputs; in training, the features include the peer's logits."""
        outputs = super().forward(image)
        if self.training:
            outputs.features[PEER] = self.peer(image).logits
        return outputs


class Mutual(Objective):
    """The sum of the terms of both networks; those of the peer are named "peer_..."."""

    def __init__(self, terms: Sequence[Term], *, classes: int, aux_weight: float = 0.3) -> None:
        problems = [
            f"The loss {term.title} needs features or parameters, but `mutual` supports only losses on logits, such as "
            "kd. Use one of them, or leave out `mutual`."
            for term in terms
            if term.weight > 0 and (term.sees_features or term.spec.learned)
        ]
        if problems:
            raise ConfigError(*problems)
        super().__init__(terms, classes=classes, teacher=_no_teacher, aux_weight=aux_weight)

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return {term: scalar, "peer_" + term: scalar, "loss": the sum of both losses}."""
        peer = outputs.features[PEER].float()
        own = self.terms(outputs, Outputs(peer.detach()), batch, step)
        other = self.terms(Outputs(peer), Outputs(outputs.logits.detach()), batch, step)
        loss = own["loss"] + other["loss"]
        return {**own, **{f"{PEER}_{title}": value for title, value in other.items()}, "loss": loss}


def _no_teacher(batch: Batch) -> Outputs:
    raise AssertionError("the teacher of each network is the other one")

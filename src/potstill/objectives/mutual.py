"""Deep mutual learning (arXiv:1706.00384): two networks start untrained and teach each other in every step.

Each has the terms of the objective with the other's logits, of the same step, as its teacher. No gradient goes from
one to the other, so this is two trainings over the same batches at the cost of both.
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
    """A student, whose network it shares, with a peer that is there in training only."""

    def __init__(self, student: Classifier, peer: Classifier) -> None:
        super().__init__(student.network, student.card, taps=student.taps)
        self.to(student.mean.device)
        self.peer = peer

    def forward(self, image: Tensor) -> Outputs:
        """Return the student's outputs; in training the peer's logits stand among its features."""
        outputs = super().forward(image)
        if self.training:
            outputs.features[PEER] = self.peer(image).logits
        return outputs


class Mutual(Objective):
    """The terms of both peers, added up; those of the peer are called "peer_..."."""

    def __init__(self, terms: Sequence[Term], *, classes: int, aux_weight: float = 0.3) -> None:
        problems = [
            f"The loss {term.title} needs more than the logits of the other network, and with `mutual` both still "
            "learn. Take a loss on logits, such as kd."
            for term in terms
            if term.weight > 0 and (term.sees_features or term.spec.learned)
        ]
        if problems:
            raise ConfigError(*problems)
        super().__init__(terms, classes=classes, teacher=_nobody, aux_weight=aux_weight)

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return {term: scalar, "peer_" + term: scalar, "loss": the sum of both losses}."""
        peer = outputs.features[PEER].float()
        own = self.judge(outputs, Outputs(peer.detach()), batch, step)
        other = self.judge(Outputs(peer), Outputs(outputs.logits.detach()), batch, step)
        loss = own["loss"] + other["loss"]
        return {**own, **{f"{PEER}_{title}": value for title, value in other.items()}, "loss": loss}


def _nobody(batch: Batch) -> Outputs:
    raise AssertionError("peers are asked about each other, not a teacher")

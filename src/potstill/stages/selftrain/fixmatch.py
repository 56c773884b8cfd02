"""FixMatch and FreeMatch: in each step, the student labels the pool itself from a weakly augmented view of each image.

The logits of the weak view are computed without dropout and without gradient, with batch statistics; with `train.ema`
by the moving average of the weights in eval mode. If their confidence is high enough, the predicted class is the label
of the strong view. No teacher is needed, which is useful with very few labels. The weight of these labels rises from 0
over the first steps, because budgets here are short and wrong labels at the start persist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from potstill.data.loader import Batch, Loader
from potstill.data.manifest import UNLABELLED
from potstill.losses.consistency import FreeMatch, fixmatch
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier, Outputs
from potstill.objectives.objective import Objective, Term
from potstill.stages.teacher.prepared import TeacherSource, TrainingContext

Rule = Callable[[Tensor, Tensor], Tensor]
WEAK = "auto"  # the policy of the weak view
RISE = 0.4  # fraction of the steps in which the weight of the student's own labels rises
LONGEST = 0.999  # momentum of FreeMatch's averages, as published for a million steps
MEMORY = 10  # number of time constants of these averages that a short training must have


class Consistency(Objective):
    """The terms of labels on labelled rows, and a consistency loss on the others.

    weak: loads the weak views. rule: (strong logits, weak logits) -> loss per row; its running averages, if any, are
    part of checkpoints. rise: number of steps over which `weight` is reached.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        student: Classifier,
        weak: Loader,
        *,
        rule: Rule,
        title: str,
        weight: float,
        rise: int = 0,
    ) -> None:
        super().__init__(terms, classes=len(student.card.classes), teacher=None)
        self._student, self._weak, self._rule, self._title, self._weight = student, weak, rule, title, weight
        self._norms = [layer for layer in student.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        self._rise = rise
        self._average: Mapping[str, Tensor] | None = None
        if isinstance(rule, nn.Module):
            self.learned[title] = rule

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Compute the logits of weak views with the moving average from now on."""
        self._average = average

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms; that of the unlabelled rows has the name of the method."""
        result = super().__call__(outputs, batch, step)
        rows = batch.label == UNLABELLED
        strong = outputs.logits[rows]
        own = self._rule(strong, self._weak_logits(batch, rows)).mean() if len(strong) else outputs.logits.sum() * 0
        weight = self._weight * min(1.0, (step + 1) / (self._rise + 1))
        return {**result, self._title: own, "loss": result["loss"] + weight * own}

    @torch.no_grad()
    def _weak_logits(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the student's logits [B', K] for the weak views."""
        index, view = (column[rows].cpu().numpy().astype(np.int64) for column in (batch.index, batch.view))
        image = self._weak.batch(index, view).image
        # Copied, so that weak views do not update the running statistics.
        state = {name: value.clone() for name, value in self._student.named_buffers()} | dict(self._average or {})
        self._student.eval()
        for layer in [] if self._average else self._norms:
            layer.train()  # running statistics lag behind at the start of training
        try:
            return torch.func.functional_call(self._student, state, (image,)).logits.float()
        finally:
            self._student.train()


@dataclass(frozen=True, eq=False, kw_only=True)
class ConsistencyTeacher(TeacherSource):
    """A student as its own teacher. method: fixmatch or freematch."""

    method: str
    threshold: float
    weight: float

    def function(self, taps: tuple[Tap, ...] = ()) -> None:
        """Return None: the student labels its own weak views."""

    def objective(self, terms: Sequence[Term], training: TrainingContext) -> Objective:
        """Return the objective of a student that labels the pool itself."""
        data, student = training.data, training.wiring.student
        weak = data.loader(augment=WEAK, seed=training.views.seed, device=student.mean.device)
        return Consistency(
            terms,
            student,
            weak,
            rule=self._rule(len(data.manifest.classes), training.steps),
            title=self.method,
            weight=self.weight,
            rise=round(RISE * training.steps),
        )

    def _rule(self, classes: int, steps: int) -> Rule:
        if self.method == "freematch":
            return FreeMatch(classes, momentum=min(LONGEST, 1 - MEMORY / max(steps, 2 * MEMORY)))
        return lambda student, teacher: fixmatch(student, teacher, threshold=self.threshold)

"""FixMatch and FreeMatch: the student labels the pool itself, step by step, from a weak view of the image it learns.

Its answer to the weak view is taken without dropout and without gradient, normalised over the batch; or, where
`train.ema` keeps a moving average of its weights, it is that one's answer in eval mode. Where it is sure enough, it is
the label of the strong view. With very few labels this needs no teacher that has to be right from the start. The
weight of these labels rises from 0 over the first steps: a budget is short here, and what is wrong at first stays.
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
RISE = 0.4  # share of the steps in which the weight of the student's own labels rises
LONGEST = 0.999  # what FreeMatch's averages keep at each step, as published for a million steps
MEMORY = 10  # and no more than that they forget the beginning so many times


class Consistency(Objective):
    """The labels' terms on labelled rows, and on the others the student's agreement with itself.

    weak: makes the weak view of a batch's rows. rule: (strong logits, weak logits) -> one value a row; its averages,
    where it has some, are saved with the training. rise: steps over which `weight` is reached.
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
        """Ask the moving average from now on."""
        self._average = average

    def __call__(self, outputs: Outputs, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Return the terms, the one of the unlabelled rows under the method's name."""
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
        # Copied, so that the running statistics are not those of weak views, nor moved twice in a step.
        state = {name: value.clone() for name, value in self._student.named_buffers()} | dict(self._average or {})
        self._student.eval()
        for layer in [] if self._average else self._norms:
            layer.train()  # running statistics lag behind a student that has just begun
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
        """Return the objective of a student that labels for itself."""
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

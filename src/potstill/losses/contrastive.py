"""Contrastive representation distillation: each embedding is matched to its own sample among thousands of negatives.

Two memory banks hold the last embedding of every training image, one per network; the student is scored against the
teacher's memory and the teacher against the student's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses.common import full_precision
from potstill.losses.spec import Site


@full_precision
def crd_nce(
    embedding: Tensor,
    memory: Tensor,
    contrast: Tensor,
    *,
    temperature: float = 0.07,
    log_z: Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """-log D(positive) - sum over negatives of log(1 - D): one side of CRD (Tian et al., arXiv:1910.10699), [B].

    D = out / (out + c), out = exp(<memory row, embedding> / temperature) / Z, c = K / N + eps.
    embedding: [B, D] with norm 1; memory: [N, D] of the other network, a constant; contrast: int64 [B, K + 1] rows of
    the memory, the positive first; log_z: the constant log Z, computed from this batch if None.
    """
    score = contrast_scores(embedding, memory, contrast, temperature=temperature)
    count, negatives = len(memory), contrast.shape[1] - 1
    log_z = log_partition(score, count) if log_z is None else log_z
    # log(out / (out + c)) is a logsigmoid, so out is never computed explicitly.
    log_c = math.log(negatives / count + eps)
    margin = score - log_z - log_c
    positive, negative = F.logsigmoid(margin[:, 0]), F.logsigmoid(-margin[:, 1:])
    return -(positive + negative.sum(1)) - negatives * (math.log(negatives / count) - log_c)


def contrast_scores(embedding: Tensor, memory: Tensor, contrast: Tensor, *, temperature: float) -> Tensor:
    """Return <memory row, embedding> / temperature for the rows in `contrast`, [B, K + 1]."""
    # All rows are scored and the required ones gathered: [B, N] is far smaller than the gathered rows [B, K + 1, D].
    return (embedding @ memory.T).gather(1, contrast) / temperature


def log_partition(score: Tensor, count: int) -> Tensor:
    """Return log Z = log(N * mean of exp(score)) of the first batch, without gradient; count: N."""
    return score.detach().flatten().logsumexp(0) - math.log(score.numel()) + math.log(count)


def refreshed(memory: Tensor, row: Tensor, embedding: Tensor, *, momentum: float = 0.5) -> Tensor:
    """Return a copy of the memory [N, D] with rows [B] updated towards the embeddings, normalised to norm 1.

    A copy, because the backward pass still needs the memory used for the scores.
    """
    moved = momentum * memory[row] + (1 - momentum) * embedding.detach()
    return memory.index_copy(0, row, F.normalize(moved, dim=1))


class Crd(nn.Module):
    """Both sides of CRD with their embeddings and memories (arXiv:1910.10699).

    student_width, teacher_width: widths of the pooled features. rows: the `index` of every training image, int64 [N];
    only these are in the memory. Outer weight 0.8, together with `kd`. The memories belong to one process.
    """

    place: Tensor
    memory_student: Tensor
    memory_teacher: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        rows: Tensor,
        *,
        width: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.embed_student = nn.Linear(student_width, width)
        self.embed_teacher = nn.Linear(teacher_width, width)
        self._negatives, self._temperature, self._momentum = negatives, temperature, momentum
        place = torch.full((int(rows.max()) + 1,), -1).index_copy(0, rows, torch.arange(len(rows)))
        self.register_buffer("place", place, persistent=False)
        for side in ("student", "teacher"):
            self.register_buffer(f"memory_{side}", F.normalize(torch.randn(len(rows), width), dim=1))
            self.register_buffer(f"log_z_{side}", torch.tensor(torch.nan))

    @classmethod
    def at(cls, site: Site, **options: Any) -> Crd:
        """Return the loss with a memory row for every training image."""
        return cls(site.student_channels[0], site.teacher_channels[0], site.rows, **options)

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
        """Return one value per sample [B]; in training mode the memories are updated afterwards.

        student, teacher: pooled features [B, width]; index: int64 [B], rows of the manifest.
        """
        row = self.place[index]
        contrast = self._draw(row)
        s = F.normalize(self.embed_student(student).float(), dim=1)
        t = F.normalize(self.embed_teacher(teacher).float(), dim=1)
        value = self._side(s, self.memory_teacher, contrast, "student")
        value = value + self._side(t, self.memory_student, contrast, "teacher")
        if self.training:
            self.memory_student = refreshed(self.memory_student, row, s, momentum=self._momentum)
            self.memory_teacher = refreshed(self.memory_teacher, row, t, momentum=self._momentum)
        return value

    def _draw(self, row: Tensor) -> Tensor:
        shape = (len(row), self._negatives)
        drawn = torch.randint(len(self.memory_student), shape, device=row.device)
        return torch.cat([row.unsqueeze(1), drawn], 1)

    def _side(self, embedding: Tensor, memory: Tensor, contrast: Tensor, side: str) -> Tensor:
        log_z = getattr(self, f"log_z_{side}")
        with torch.no_grad():
            score = contrast_scores(embedding, memory, contrast, temperature=self._temperature)
            # The first batch sets Z permanently; torch.where, so that the host does not wait for the device.
            log_z = torch.where(log_z.isnan(), log_partition(score, len(memory)), log_z)
        setattr(self, f"log_z_{side}", log_z)
        return crd_nce(embedding, memory, contrast, temperature=self._temperature, log_z=log_z)

"""Losses with learned parameters, which are trained with the student and not exported.

Parts of the teacher (its classifier, its margins) are constants and not in the state dict.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from potstill.losses.features import ofd, ofd_margin, srrl, vid
from potstill.losses.logits import kd
from potstill.losses.spec import Site

CURRICULUM = 20  # the temperature becomes adversarial over a twentieth of the steps, as published for ImageNet


class LearnedTemperature(nn.Module):
    """`kd` at a learned, adversarial temperature T = 1 + 20 * sigmoid(theta) (CTKD).

    Curriculum temperature (Li et al., arXiv:2211.16231): theta's gradient is multiplied by lambda, which decreases
    along a cosine from 0 to -1 over the first `steps`, so that the task becomes harder. T starts at 15.6.
    """

    def __init__(self, steps: int, *, lowest: float = 1.0, span: float = 20.0, theta: float = 1.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))
        self._steps, self._lowest, self._span = steps, lowest, span

    @classmethod
    def at(cls, site: Site, **options: Any) -> LearnedTemperature:
        """Return the loss for a training of `site.steps` steps."""
        return cls(max(1, site.steps // CURRICULUM), **options)

    def reversal(self, step: int) -> float:
        """Return lambda: 0 at step 0, -1 from step `steps` on."""
        return (math.cos(math.pi * min(step / self._steps, 1.0)) - 1) / 2

    def temperature(self, step: int) -> Tensor:
        """Return T (a scalar with the reversed gradient), between `lowest` and `lowest + span`."""
        fixed = self.theta.detach()
        theta = fixed + self.reversal(step) * (self.theta - fixed)
        return self._lowest + self._span * torch.sigmoid(theta)

    def forward(self, student: Tensor, teacher: Tensor, step: int) -> Tensor:
        """Return `kd` [B] of the logits [B, K] at the temperature of this step."""
        return kd(student, teacher, temperature=self.temperature(step))


class Vid(nn.Module):
    """`vid` with a learned variance per channel, which starts at `initial_variance` (arXiv:1904.05835)."""

    def __init__(self, channels: int, *, initial_variance: float = 5.0, eps: float = 1e-5) -> None:
        super().__init__()
        start = math.log(math.expm1(initial_variance - eps))
        self.log_scale = nn.Parameter(torch.full((channels,), start))
        self._eps = eps

    @classmethod
    def at(cls, site: Site, **options: Any) -> Vid:
        """Return the loss for the channels of the teacher's features."""
        return cls(site.teacher_channels[0], **options)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value per sample [B]; features [B, C, ...] of equal shape, the student's after a projector."""
        return vid(student, teacher, log_scale=self.log_scale, eps=self._eps)


class Srrl(nn.Module):
    """`srrl` with its connector (linear, batch norm, ReLU) before the teacher's frozen classifier.

    student_width: width of the student's pooled features; weight [K, D], bias [K]: the teacher's classifier.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, student_width: int, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        width = weight.shape[1]
        self.connector = nn.Sequential(nn.Linear(student_width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.register_buffer("weight", weight.detach().clone(), persistent=False)
        self.register_buffer("bias", bias.detach().clone(), persistent=False)

    @classmethod
    def at(cls, site: Site, **options: Any) -> Srrl:
        """Return the loss with the teacher's classifier; without ReLU if the teacher's features have none."""
        loss = cls(site.student_channels[0], *site.classifier(), **options)
        if not site.rectified:
            loss.connector[-1] = nn.Identity()
        return loss

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value per sample [B] from the pooled features [B, student_width] and [B, D]."""
        logits = nn.functional.linear(teacher, self.weight, self.bias)
        return srrl(self.connector(student), teacher, weight=self.weight, bias=self.bias, teacher_logits=logits)


class Ofd(nn.Module):
    """`ofd` with its connector (1x1 convolution, batch norm) and the margin of the teacher's last batch norm."""

    margin: Tensor

    def __init__(self, student_channels: int, batch_norm: nn.BatchNorm2d) -> None:
        super().__init__()
        channels = batch_norm.num_features
        self.connector = nn.Sequential(nn.Conv2d(student_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        margin = ofd_margin(batch_norm.weight.detach(), batch_norm.bias.detach())
        self.register_buffer("margin", margin.view(1, -1, 1, 1), persistent=False)

    @classmethod
    def at(cls, site: Site, **options: Any) -> Ofd:
        """Return the loss with the margin of the batch norm before the teacher's map."""
        return cls(site.student_channels[0], site.batch_norm(), **options)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value per sample [B]; both are maps [B, C, H, W] before the ReLU, of equal height and width."""
        return ofd(self.connector(student), teacher, margin=self.margin)

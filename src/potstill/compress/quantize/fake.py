"""Layers that simulate integer arithmetic in float, with learned steps (fake quantization).

Learned step size quantization, LSQ (arXiv:1902.08153): rounding uses the straight-through estimator, and the step of
each grid is a parameter trained with the weights.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_STEP = 1e-12  # avoids division by zero if training drives a step to zero


class StepQuantizer(nn.Module):
    """`step * clamp(round(x / step), lowest, highest)`, differentiable in `x` and in `step`.

    `step` is a scalar or has shape [C, 1, ...], one per channel of dimension 0. `codes` holds the lowest and the
    highest code; it is part of the state dict, so that a model can be rebuilt from its file alone. Computes in float32
    also under autocast. The gradient of the step is scaled by 1 / sqrt(n * largest code), n the number of
    values in `x[0]` (weights of one output channel; features of one sample).
    """

    codes: Tensor

    def __init__(self, step: Tensor, lowest: int, highest: int) -> None:
        super().__init__()
        self.step = nn.Parameter(step.detach().clone())
        self.register_buffer("codes", torch.tensor([lowest, highest], device=step.device))

    @property
    def bits(self) -> int:
        lowest, highest = self.codes.tolist()
        return (highest - lowest).bit_length()

    @property
    def scale(self) -> Tensor:
        """The positive step used in the computation."""
        return self.step.detach().abs().clamp(min=LEAST_STEP)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of `x` as int64."""
        return (x.detach() / self.scale).round().clamp(self.codes[0], self.codes[1]).long()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if self.step.dim() == 0 and not torch.is_grad_enabled():  # fused: one pass over memory instead of five
                lowest, highest = self.codes.tolist()
                fused = torch.fake_quantize_per_tensor_affine
                return fused(x.float(), self.scale.item(), -lowest, 0, highest - lowest).to(x.dtype)
            step = self.step.abs().clamp(min=LEAST_STEP)
            return _RoundToStep.apply(x.float(), step, self.codes).to(x.dtype)


class _RoundToStep(torch.autograd.Function):
    """Rounding with the gradients of LSQ: for `x` 1 inside the range, for `step` the rounding error (inside) or the
    outermost code (outside). Implemented by hand because autograd through clamp and round takes twice as long on a
    CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, step: Tensor, codes: Tensor) -> Tensor:
        scaled = x / step
        clipped = scaled.clamp(codes[0], codes[1])
        code = clipped.round()
        ctx.save_for_backward(scaled, clipped == scaled, code, step, codes)
        return code * step

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        scaled, inside, code, step, codes = ctx.saved_tensors
        of_x = gradient * inside
        of_step = gradient * code - of_x * scaled
        balance = (scaled[0].numel() * codes.abs().amax()).rsqrt()
        return of_x, of_step.sum_to_size(step.shape) * balance, None


class QuantConv2d(nn.Conv2d):
    """A convolution with quantized weight and input; an input quantizer of None keeps the input in float.

    `same` uses TensorFlow's padding (timm's Conv2dSame), with odd remainders at the right and bottom.
    """

    def __init__(self, layer: nn.Conv2d, weight: StepQuantizer, input: StepQuantizer | None, same: bool) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            cast("tuple[int, int]", layer.kernel_size),
            cast("tuple[int, int]", layer.stride),
            cast("str | tuple[int, int]", layer.padding),
            cast("tuple[int, int]", layer.dilation),
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            device="meta",
        )
        self.weight, self.bias, self.same = layer.weight, layer.bias, same
        self.weight_quantizer, self.input_quantizer = weight, input
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        if self.same:
            x = F.pad(x, self._same_padding(x))
        return self._conv_forward(x, self.weight_quantizer(self.weight), self.bias)

    def _same_padding(self, x: Tensor) -> list[int]:
        sides = []
        for size, kernel, stride, dilation in zip(
            reversed(x.shape[-2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            reversed(self.dilation),
            strict=True,
        ):
            missing = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return sides


class QuantLinear(nn.Linear):
    """A linear layer with quantized weight and input; an input quantizer of None keeps the input in float."""

    def __init__(self, layer: nn.Linear, weight: StepQuantizer, input: StepQuantizer | None) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_quantizer, self.input_quantizer = weight, input
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        return F.linear(x, self.weight_quantizer(self.weight), self.bias)


def quantized_layers(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    """Return the quantization-aware layers of a model by path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, (QuantConv2d, QuantLinear))}

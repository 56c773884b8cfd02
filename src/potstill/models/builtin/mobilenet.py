"""MobileNet (arXiv:1704.04861) with TensorFlow's padding, so that weights from TensorFlow keep their accuracy.

Module names are those of timm's MobileNetV1, which has no narrow variants with that padding.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from potstill.models.builtin.init import he

STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))
"""Output channels of the blocks at width 1; every stage except the first begins with stride 2."""


def mobilenet_v1(
    num_classes: int, channels: int, size: tuple[int, int], *, width: float = 0.25, padding: str = "same"
) -> nn.Module:
    """Return the network with width multiplier `width`; 0.47 M parameters at 0.25 for 1,000 classes.

    padding: "same" pads strided convolutions as TensorFlow does, at the right and bottom for even sides; "symmetric"
    pads all sides equally.
    """
    return he(MobileNet(num_classes, channels, width=width, padding={"same": "same", "symmetric": ""}[padding]))


class MobileNet(nn.Module):
    """Stem, five stages of separable blocks, global average pool, classifier."""

    def __init__(self, num_classes: int, channels: int, *, width: float, padding: str) -> None:
        super().__init__()
        inputs, stages = _scaled(32, width), []
        self.conv_stem = _conv(channels, inputs, stride=2, padding=padding)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU6()
        for number, stage in enumerate(STAGES):
            widths = [_scaled(outputs, width) for outputs in stage]
            strides = [2 if number and not position else 1 for position in range(len(stage))]
            rows = zip([inputs, *widths], widths, strides, strict=False)
            stages.append(nn.Sequential(*(_separable(a, b, stride, padding) for a, b, stride in rows)))
            inputs = widths[-1]
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        return self.classifier(self.flatten(self.pool(x)))


def _separable(inputs: int, outputs: int, stride: int, padding: str) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_dw=_conv(inputs, inputs, stride=stride, padding=padding, depthwise=True),
        bn1=nn.BatchNorm2d(inputs),
        act1=nn.ReLU6(),
        conv_pw=nn.Conv2d(inputs, outputs, 1, bias=False),
        bn2=nn.BatchNorm2d(outputs),
        act2=nn.ReLU6(),
    )
    return nn.Sequential(layers)


def _conv(inputs: int, outputs: int, **settings: object) -> nn.Module:
    from timm.layers import create_conv2d  # pyright: ignore[reportPrivateImportUsage]  # timm re-exports it

    return create_conv2d(inputs, outputs, 3, bias=False, **settings)


def _scaled(channels: int, width: float) -> int:
    """Return a number of channels times the width, rounded to a multiple of 8 as in the original."""
    return max(8, int(channels * width + 4) // 8 * 8)

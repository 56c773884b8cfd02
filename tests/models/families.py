"""A small model of each family with random weights, for the tests of what works on any of them."""

from __future__ import annotations

import copy
import functools

from potstill.models import zoo
from potstill.models.outputs import Classifier

XCEPTION = [
    {"in_chs": 64, "out_chs": 32, "stride": 2},
    {"in_chs": 32, "out_chs": 48, "stride": 2},
    {"in_chs": 48, "out_chs": 48, "stride": 1},
    {"in_chs": 48, "out_chs": 64, "stride": 2},
    {"in_chs": 64, "out_chs": [64, 64, 96], "stride": 1, "no_skip": True, "start_with_relu": False},
]
"""Blocks of every kind that xception41 has, 5 instead of its 12."""
SMALL = {
    "vgg": ("vgg11_bn", 32, {"mlp_ratio": 1 / 128}),
    "resnet": ("resnet18", 32, {"channels": (8, 16, 24, 32), "stem_width": 8}),
    "torchvision": ("torchvision:resnet18", 32, {}),
    "inception": ("inception_v3", 96, {}),
    "xception": ("xception41", 64, {"block_cfg": XCEPTION}),
    "mobilenet": ("mobilenetv2_035", 32, {}),
    "vit": ("vit_tiny_patch16_224", 64, {"embed_dim": 24, "depth": 4, "num_heads": 2}),
    "swin": ("swin_tiny_patch4_window7_224", 56, {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}),
    "builtin": ("builtin:resnet20-cifar", 16, {"width": 8}),
}
"""Name, size and options by family."""


def small(family: str, classes: int = 3) -> Classifier:
    """Return the family's small model in eval mode, a copy of its own."""
    return copy.deepcopy(_created(family, classes))


@functools.cache
def _created(family: str, classes: int) -> Classifier:
    name, side, options = SMALL[family]
    names = tuple(str(number) for number in range(classes))
    return zoo.create(name, classes=names, size=(side, side), options=options).eval()

"""Families that are built unlike a plain CNN survive export and 8 bits: attention, gates, branches, own padding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from timm import create_model
from timm.layers import ConvNormAct
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.inception_v3 import InceptionA, InceptionB
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.errors import ModelError
from potstill.exporters import export_onnx, parity, quantize_int8
from potstill.exporters.tflite import check_operators, to_tflite
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.runtimes import open_exported
from potstill.models import zoo
from potstill.models.outputs import Classifier
from tests.models.families import SMALL, XCEPTION, small

from . import nets

pytestmark = pytest.mark.slow

IMAGES, SIDE = 24, 32


LAST = {"in_chs": 48, "out_chs": (48, 64, 96), "stride": 1, "no_skip": True, "start_with_relu": False}
"""Xception's last block, behind two of the others: many layers of random weights blow up any change."""


def mobile(activation: type[nn.Module], **options: object) -> nn.Module:
    """Return a few blocks of a MobileNet, depthwise and inverted, with squeeze-and-excite where `se` says so."""
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c8"], ["ir_r2_k5_s2_e3_c16_se0.25"], ["cn_r1_k1_s1_c24"]])
    return MobileNetV3(
        blocks, num_classes=3, stem_size=8, num_features=32, act_layer=activation, round_chs_fn=round, **options
    )


def branches() -> nn.Module:
    """Return the first two kinds of InceptionV3's blocks: paths of different depth and pooling that are joined."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
    unpadded = functools.partial(ConvNormAct, padding=0)
    mixed = InceptionA(16, 8, conv_block=unpadded), InceptionB(64 + 64 + 96 + 8, conv_block=unpadded)
    return nn.Sequential(stem, *mixed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(384 + 96 + 232, 3))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "convnext": lambda: create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)),
    "xception": lambda: create_model("xception41", num_classes=3, block_cfg=[XCEPTION[0], XCEPTION[1], LAST]),
    "vit": lambda: create_model("vit_tiny_patch16_224", num_classes=3, img_size=SIDE, patch_size=8, **SMALL["vit"][2]),
    "inception": branches,
    "mobilenet v2": lambda: mobile(nn.ReLU6),
    "mobilenet v3, padded as TensorFlow pads": lambda: mobile(nn.Hardswish, pad_type="same"),
    "efficientnet lite": lambda: mobile(nn.ReLU6, pad_type="same", se_layer=None),
    "resnet, option A": lambda: small("builtin").network,
}
NO_TFLITE = {"convnext": "Gelu", "vit": "LayerNormalization"}
"""Families that TensorFlow Lite files cannot have, and an operator of each."""


def grown(name: str) -> tuple[Classifier, Tensor]:
    """Return a classifier whose BatchNorm has seen the images, so that its answers differ, and these images."""
    with zoo.seeded(0):
        classifier = Classifier(FAMILIES[name](), nets.card((SIDE, SIDE)))
    image = patterns(IMAGES, SIDE)
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        classifier.train()(image)
    return classifier.eval(), image


def patterns(count: int, size: int) -> Tensor:
    """Return images that differ as much as images can: large patches of any colour."""
    patches = torch.rand((count, 3, 3, 3), generator=torch.Generator().manual_seed(0)).round()
    return F.interpolate(patches, (size, size), mode="bilinear").clamp(0, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_parity_in_float_and_in_8_bits(name: str, tmp_path: Path) -> None:
    """Distances are shares of what the logits differ by from image to image; a file of nonsense is off by 1 or more."""
    classifier, image = grown(name)
    with torch.no_grad():
        said = classifier(image).logits
    spread = float(said.std(0).mean())
    export_onnx(classifier, tmp_path / "float.onnx")
    exact = parity(classifier, OnnxModel(tmp_path / "float.onnx"), image.split(8))
    assert exact["max_logit_difference"] < 2e-3 * spread and exact["agreement"] == 100
    quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", image.numpy())
    off = (OnnxModel(tmp_path / "int8.onnx")(image).logits - said).square().mean().sqrt() / spread
    assert 1e-4 < off < 0.25
    if name in NO_TFLITE:
        with pytest.raises(ModelError, match=rf"operators that potstill cannot write.*{NO_TFLITE[name]} \("):
            check_operators(tmp_path / "float.onnx", name)
    elif find_spec("ai_edge_litert"):
        _check_tflite(tmp_path, image, said)


def _check_tflite(folder: Path, image: Tensor, logits: Tensor) -> None:
    """The file in 8 bits is as far from the network as the ONNX file is, since both have the same numbers."""
    off = {}
    for kind in ("float", "int8"):
        to_tflite(folder / f"{kind}.onnx", folder / f"{kind}.tflite", image.numpy())
        for suffix in (".onnx", ".tflite"):
            model = open_exported(folder / f"{kind}{suffix}", threads=1)
            off[kind + suffix] = float((model(image).logits - logits).square().mean().sqrt() / logits.std(0).mean())
    assert off["float.tflite"] < 2e-3
    assert off["int8.tflite"] < 1.5 * off["int8.onnx"] + 0.02
